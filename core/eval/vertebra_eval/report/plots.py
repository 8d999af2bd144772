"""Plots of a COCO evaluation, drawn off screen, all in one palette."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vertebra_eval.coco.result import CocoResult
from vertebra_eval.report.plot_style import BLUE, INK, LIGHT_BLUE, ORANGE, RED, new_axes, plot_style, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["class_bars", "pr_curves", "score_histogram"]

_LINES = ((0.5, BLUE, "-"), (0.6, "#178a8a", "-"), (0.7, "#5d9e3c", "-"), (0.75, ORANGE, "-"), (0.9, RED, "-"))
_MOST_BARS = 30  # with more classes, the best and the worst half of these


def pr_curves(result: CocoResult) -> Figure | None:
    """Precision over recall, mean over classes, at several IoU thresholds. None if nothing is defined."""
    curves = [(f"{iou:.2f}", result.pr_curve(iou), color, line) for iou, color, line in _LINES]
    low, high = result.params.iou_thresholds[[0, -1]]
    curves.append((f"mean {low:.2f} to {high:.2f}", result.pr_curve(), INK, "--"))
    if all(precision is None for _, precision, _, _ in curves):
        return None
    with plot_style():
        figure, axes = new_axes(4.2)
        for label, precision, color, line in curves:
            if precision is not None:
                text = f"{label}   AP {precision.mean():.3f}"
                axes.plot(result.params.recall_thresholds, precision, line, color=color, linewidth=1.8, label=text)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="Precision and recall")
        axes.grid(True)
        measure = "OKS" if result.task == "keypoints" else "IoU"
        legend = axes.legend(title=f"{measure} at least", loc="best")
        legend.get_title().set_fontsize(9)
    return figure


def class_bars(names: Sequence[str], ap: Sequence[float | None], ap50: Sequence[float | None]) -> Figure | None:
    """AP and AP50 of each class that has ground truth, best first. None if there is none."""
    rows = [(name, a, b) for name, a, b in zip(names, ap, ap50, strict=True) if a is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1])
    title = "AP by class"
    if len(rows) > _MOST_BARS:
        title = f"AP by class: the best and the worst {_MOST_BARS // 2} of {len(rows)}"
        rows = rows[: _MOST_BARS // 2] + rows[-(_MOST_BARS // 2) :]
    values = np.array([row[1] for row in rows])
    values50 = np.array([np.nan if row[2] is None else row[2] for row in rows])
    with plot_style():
        figure, axes = new_axes(max(2.1, 1.3 + 0.24 * len(rows)))
        y = np.arange(len(rows))
        axes.barh(y, np.nan_to_num(values50), height=0.66, color=LIGHT_BLUE, label="AP50")
        axes.barh(y, values, height=0.66, color=BLUE, label="AP")
        for position, (value, wide) in enumerate(zip(values, values50, strict=True)):
            end = max(value, 0 if np.isnan(wide) else wide)
            text = f"{value:.2f}" if np.isnan(wide) else f"{value:.2f} / {wide:.2f}"
            axes.text(end + 0.012, position, text, va="center", fontsize=8.5)
        axes.set_yticks(y, [short_name(row[0]) for row in rows])
        axes.set(xlim=(0, 1.18), ylim=(len(rows) - 0.4, -0.6), xticks=np.arange(0, 1.01, 0.2), title=title)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def score_histogram(result: CocoResult, threshold: float | None) -> Figure | None:
    """Scores of matched and of unmatched detections. None without detections."""
    matches = result.matches
    state, iou = matches.state(matches.half), float(result.params.iou_thresholds[matches.half])
    hits, misses = matches.score[state == 1], matches.score[state == 0]
    if not len(hits) + len(misses):
        return None
    finite = [score for score in (*hits, *misses) if np.isfinite(score)]
    low, high = min(0.0, 1.0, *finite), max(0.0, 1.0, *finite)
    hits, misses = hits.clip(low, high), misses.clip(low, high)  # infinite scores count in the outermost bins
    bins = np.linspace(low, high, 41).tolist()
    with plot_style():
        figure, axes = new_axes(3.2)
        for scores, color, label in ((misses, ORANGE, "wrong"), (hits, BLUE, "right")):
            axes.hist(scores, bins=bins, color=color, alpha=0.35, label=f"{label}: {len(scores):,}", linewidth=0)
            axes.hist(scores, bins=bins, color=color, histtype="step", linewidth=1.3)
        if len(hits) + len(misses) > 200:  # wrong ones of low score would hide all others
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
            axes.yaxis.set_major_formatter("{x:,.0f}")
        if threshold is not None:
            place, label = min(max(threshold, low), high), f"best F1 from {threshold:.2f}"
            axes.axvline(place, color=INK, linestyle="--", linewidth=1.2, label=label)
        measure = "OKS" if result.task == "keypoints" else "IoU"
        axes.set(
            xlim=(low, high),
            xlabel="score" if len(finite) == len(hits) + len(misses) else "score (infinite ones at the ends)",
            ylabel="detections",
            title=f"Scores of right and wrong detections ({measure} {iou:.2f})",
        )
        axes.grid(True, axis="y")
        axes.legend(loc="best")
    return figure
