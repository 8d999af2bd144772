"""Plots of what a detector gets wrong: confusion matrix, error split, reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vertebra_eval.analysis import Calibration, ConfusionMatrix, ErrorSplit
from vertebra_eval.report.plot_style import BLUE, GRAY, INK, ORANGE, new_axes, plot_style, shades, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_heatmap", "error_bars", "reliability"]

_MOST_CLASSES = 20
_MOST_NUMBERS = 12  # up to this many rows the cells have room for their counts


def confusion_heatmap(matrix: ConfusionMatrix) -> Figure | None:
    """Counts as a heat map, each annotated class as shares of its objects. None without objects and detections.

    With more than `_MOST_CLASSES` classes, those with the most errors are shown.
    """
    if not matrix.counts.sum():
        return None
    shown = _worst_classes(matrix.counts)
    counts = matrix.counts[np.ix_(shown, shown)]
    labels = [short_name(matrix.labels[k]) for k in shown]
    shares = matrix.counts[shown] / np.maximum(matrix.counts[shown].sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.6 + 0.34 * len(shown))
    with plot_style():
        figure, axes = new_axes(side, width=side + 0.6)
        colors = shades("#ffffff", "#9dc0f2", BLUE, "#173f82")
        image = axes.imshow(shares[:, shown], cmap=colors, vmin=0, vmax=1, aspect="auto")
        ticks = np.arange(len(shown))
        size = 9 if len(shown) <= _MOST_NUMBERS else 7.5
        axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(ticks, labels, fontsize=size)
        axes.tick_params(length=0)
        axes.set(xlabel="detected", ylabel="annotated")
        axes.spines[:].set_visible(False)
        axes.axhline(len(shown) - 1.5, color=GRAY, linewidth=0.8)
        axes.axvline(len(shown) - 1.5, color=GRAY, linewidth=0.8)
        if len(shown) <= _MOST_NUMBERS:
            for row, column in np.argwhere(counts > 0):
                color = "white" if shares[row, shown[column]] > 0.45 else INK
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=9)
        rest = len(matrix.class_names) - (len(shown) - 1)
        title = "Confusion matrix" if not rest else f"Confusion matrix: the {len(shown) - 1} classes with most errors"
        axes.set_title(title)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("share of the row")
    return figure


def _worst_classes(counts: np.ndarray) -> np.ndarray:
    """Class numbers to show, in their order, and background last."""
    classes = len(counts) - 1
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    worst = np.sort(np.argsort(-errors[:classes], kind="stable")[:_MOST_CLASSES])
    return np.append(worst, classes)


def error_bars(split: ErrorSplit) -> Figure:
    """AP50 gained by fixing each kind of error, with the counts."""
    kinds = list(split.delta_ap50)
    values = np.array([split.delta_ap50[kind] for kind in kinds])
    with plot_style():
        figure, axes = new_axes(3.1)
        rows = np.arange(len(kinds))
        axes.barh(rows, values, height=0.62, color=ORANGE)
        most = max(float(values.max()), 0.01)
        for row, kind in enumerate(kinds):
            count = split.counts[kind]
            axes.text(values[row] + 0.015 * most, row, f"{values[row]:.3f}  ({count:,})", va="center", fontsize=9)
        axes.set_yticks(rows, kinds)
        axes.set(
            xlim=(0, 1.3 * most), ylim=(len(kinds) - 0.4, -0.6), xlabel="AP50 gained by fixing all errors of a kind"
        )
        axes.set_title(f"What costs AP50 ({split.ap50:.3f} now)")
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
    return figure


def reliability(found: Calibration, iou: float) -> Figure:
    """Precision of the detections in each bin of score, beside what their scores promise."""
    centers, width = (found.edges[:-1] + found.edges[1:]) / 2, found.edges[1] - found.edges[0]
    filled = found.counts > 0
    with plot_style():
        figure, axes = new_axes(3.8)
        axes.bar(
            centers[filled], found.precision[filled], width=0.92 * width, color=BLUE, alpha=0.75, label="precision"
        )
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1.2, label="as scores promise")
        axes.plot(found.confidence[filled], found.precision[filled], "o", color=INK, markersize=3.5, label="mean score")
        for x, y, count in zip(centers[filled], found.precision[filled], found.counts[filled], strict=True):
            text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
            axes.text(x, y + 0.015, text, ha="center", va="bottom", fontsize=7.5, color=INK)
        axes.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="score", ylabel=f"matched an object (IoU {iou:.2f})")
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.set_title(f"Calibration: expected error {found.error:.3f}")
        axes.grid(True, axis="y")
        figure.legend(loc="outside lower center", ncols=3)
    return figure
