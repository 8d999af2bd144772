"""Plots of semantic and panoptic evaluations: quality of each class, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vertebra_eval.report.plot_style import BLUE, GRAY, INK, LIGHT_BLUE, new_axes, plot_style, shades, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_map", "quality_bars"]

_MOST_BARS = 40  # with more classes, the best and the worst half of these
_MOST_CELLS = 30  # rows and columns of a confusion map; with more classes, the most confused ones
_NUMBERED = 14  # up to this many rows each cell gets its number
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # keeps lines off a number


def quality_bars(
    names: Sequence[str],
    values: Sequence[float | None],
    *,
    measure: str,
    mean: float | None = None,
    second: Sequence[float | None] | None = None,
    second_measure: str = "",
) -> Figure | None:
    """A bar for each class that has a value, best first. None if there is none.

    Args:
        names, values: of each class, fractions.
        measure: what the values are, for title and legend.
        mean: drawn as a line.
        second: a further value of each class, behind the first.
    """
    others = [None] * len(names) if second is None else second
    rows = [(name, value, other) for name, value, other in zip(names, values, others, strict=True) if value is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1])
    title = f"{measure} by class"
    if len(rows) > _MOST_BARS:
        title = f"{measure}: the best and the worst {_MOST_BARS // 2} of {len(rows)} classes"
        rows = rows[: _MOST_BARS // 2] + rows[-(_MOST_BARS // 2) :]
    y = np.arange(len(rows))
    with plot_style():
        figure, axes = new_axes(max(2.1, 1.3 + 0.24 * len(rows)))
        if second is not None:
            axes.barh(y, [row[2] or 0.0 for row in rows], height=0.66, color=LIGHT_BLUE, label=second_measure)
        axes.barh(y, [row[1] for row in rows], height=0.4 if second is not None else 0.66, color=BLUE, label=measure)
        for position, (_, value, other) in enumerate(rows):
            text = f"{value:.2f}" if other is None else f"{value:.2f} / {other:.2f}"
            axes.text(max(value, other or 0.0) + 0.012, position, text, va="center", fontsize=8.5, bbox=_PAPER)
        if mean is not None:
            axes.axvline(mean, color=INK, linestyle="--", linewidth=1.2, label=f"mean {mean:.3f}")
        axes.set_yticks(y, [short_name(row[0]) for row in rows])
        axes.set(xlim=(0, 1.18), ylim=(len(rows) - 0.4, -0.6), xticks=np.arange(0, 1.01, 0.2), title=title)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        if mean is not None or second is not None:
            figure.legend(loc="outside lower center", ncols=3)
    return figure


def confusion_map(counts: np.ndarray, names: Sequence[str], *, unit: str = "pixels") -> Figure | None:
    """Where each true class went, as shares of its row. None if nothing was counted.

    Args:
        counts: (R, C) whole numbers, a row for each true, a column for each predicted class; more columns than rows
            are for what was predicted as none of the classes.
        names: of the C columns, the first R of them the rows'.
    """
    counts = np.asarray(counts, dtype=np.float64)
    totals = counts.sum(axis=1)
    shown = np.flatnonzero(totals)
    if not len(shown):
        return None
    title = f"True class (row) to predicted class (column), share of {unit}"
    if len(shown) > _MOST_CELLS:
        lost = totals[shown] - counts[shown, shown]
        shown = np.sort(shown[np.argsort(-lost, kind="stable")[:_MOST_CELLS]])
        title = f"Shares of {unit}: the {_MOST_CELLS} classes that lose the most"
    used = np.flatnonzero(counts.sum(axis=0))
    columns = [*shown, *(c for c in range(len(totals), counts.shape[1]) if c in used)]
    shares = counts[np.ix_(shown, columns)] / totals[shown, None]
    side = max(3.6, 1.6 + 0.34 * len(shown))
    with plot_style():
        figure, axes = new_axes(side, width=max(side + 0.6, 5.2))  # the title wants 5 inches
        colors = shades("#ffffff", LIGHT_BLUE, BLUE, "#122f63")
        axes.imshow(np.sqrt(shares), cmap=colors, vmin=0, vmax=1, aspect="auto")  # the root shows small shares too
        if len(shown) <= _NUMBERED:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.005:
                    color = "white" if share > 0.3 else INK
                    text = f"{share:.2f}".removeprefix("0")
                    axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(range(len(columns)), [short_name(names[c]) for c in columns], rotation=60, ha="right")
        axes.set_yticks(range(len(shown)), [short_name(names[r]) for r in shown.tolist()])
        axes.tick_params(length=0, labelsize=8.5)
        axes.spines[:].set(visible=True, color=GRAY)
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure
