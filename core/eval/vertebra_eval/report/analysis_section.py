"""What the report shows of errors, confusion, calibration and sizes of one task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vertebra_eval.analysis import (
    BACKGROUND_IOU,
    ERROR_MEANINGS,
    Overlaps,
    by_size,
    calibration,
    confusion_matrix,
    error_split,
    overlaps,
)
from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.reasons import no_detection_from
from vertebra_eval.coco.result import CocoResult
from vertebra_eval.report.analysis_plots import confusion_heatmap, error_bars, reliability
from vertebra_eval.report.blocks import Section, Table, Text
from vertebra_eval.report.plot_files import write_plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["analysis_sections"]

Plot = tuple[str, "Figure | None", str]  # name, plot, caption
Row = list[str | int | float | None]
Found = tuple[list[Plot], list[Text | Table]]
_WITHOUT_HITS = 0.5  # score threshold of the confusion matrix where no detection matched anything
_MOST_CONFUSIONS = 10


def analysis_sections(title: str, result: CocoResult, folder: Path) -> list[Section]:
    """Sections of one task; plots go to `folder`. Nothing where no object counts.

    Args:
        title: what the task is called, such as boxes.
    """
    matches = result.matches
    if matches.object_ignored.all():
        return []
    plots: list[Plot] = []
    blocks: list[Text | Table] = []
    if result.task != "keypoints":  # keypoints define no overlap with objects of other classes
        pairs = overlaps(matches, BACKGROUND_IOU, result.task)
        found = [_errors(matches, pairs), _calibration(result), _confusion(matches, pairs)]
    else:
        found = [_calibration(result)]
    for some_plots, some_blocks in found:
        plots += some_plots
        blocks += some_blocks
    figures = write_plots(plots, folder, prefix=f"{result.task}_")
    return [Section(f"Errors: {title}", [*figures, *blocks]), _sizes(title, result)]


def _errors(matches: Matches, pairs: Overlaps) -> Found:
    split = error_split(matches, pairs)
    if split is None:
        return [], []
    rows: list[Row] = [
        [kind, split.counts[kind], split.delta_ap50[kind], ERROR_MEANINGS[kind]] for kind in ERROR_MEANINGS
    ]
    said = (
        "Each false detection and each missed object has one kind (TIDE, arXiv:2008.08115). The gains do not add up, "
        "as the kinds depend on each other."
    )
    caption = "AP50 gained by fixing all errors of a kind, and in brackets their number."
    table = Table(["kind", "count", "AP50 gained", "what it is"], rows)
    return [("errors", error_bars(split), caption)], [Text(said), table]


def _confusion(matches: Matches, pairs: Overlaps) -> Found:
    best = matches.best_threshold(matches.half)
    score = _WITHOUT_HITS if best is None else best
    why_none = no_detection_from(matches.score, score)
    if why_none:
        return [], [Text(f"No confusion matrix: {why_none}.")]
    matrix = confusion_matrix(matches, pairs, score=score)
    chosen = ", where F1 is best" if best is not None else ""
    caption = (
        f"Detections from score {score:.2f} on{chosen}, paired with objects by IoU from {matrix.iou:g} whatever the "
        "classes. Last column: missed objects; last row: detections of nothing."
    )
    blocks: list[Text | Table] = []
    confusions = matrix.confusions(_MOST_CONFUSIONS)
    if confusions:
        blocks.append(Text("The classes confused most often:"))
        blocks.append(Table(["annotated", "detected as", "count"], [list(row) for row in confusions]))
    elif len(matches.class_names) > 1:
        blocks.append(Text(f"From score {score:.2f} on, no object was confused with another class."))
    return [("confusion", confusion_heatmap(matrix), caption)], blocks


def _calibration(result: CocoResult) -> Found:
    found = calibration(result.matches, result.matches.half)
    if isinstance(found, str):
        return [], [Text(f"No calibration: {found}.")]
    caption = (
        "How often detections of a score match an object, and their number. The expected calibration error is the mean "
        "distance of the two over all detections."
    )
    return [("calibration", reliability(found, float(result.params.iou_thresholds[result.matches.half])), caption)], []


def _sizes(title: str, result: CocoResult) -> Section:
    rows: list[Row] = []
    for row in by_size(result):
        low, high = (f"{area**0.5:g}²" for area in (row.low, row.high))
        limits = f"below {high}" if row.low == 0 else f"above {low}" if row.high >= 1e10 else f"{low} to {high}"
        name = "all" if row.name == "all" else f"{row.name}, {limits} pixels"
        rows.append([name, row.objects, row.ap, row.ap50, row.ar])
    return Section(f"Sizes: {title}", [Table(["size", "objects", "AP", "AP50", "AR"], rows, bar_columns=(2, 3, 4))])
