"""What the report shows of errors, confusion, calibration and sizes of one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vertebra.evaluation.analysis import (
    BACKGROUND_IOU,
    ERROR_MEANINGS,
    Overlaps,
    by_size,
    calibration,
    confusion_matrix,
    error_split,
    overlaps,
)
from vertebra.evaluation.analysis.reasons import no_detection_from
from vertebra.evaluation.curves import CocoArrays, best_threshold
from vertebra.evaluation.match_columns import MatchColumns
from vertebra.evaluation.report.analysis_plots import confusion_heatmap, error_bars, reliability
from vertebra.evaluation.report.blocks import Figure, Section, Table, Text

__all__ = ["analysis_sections"]

_WITHOUT_HITS = 0.5  # score threshold of the confusion matrix where no detection met anything
_MOST_CONFUSIONS = 10


def analysis_sections(
    title: str,
    arrays: CocoArrays,
    folder: Path,
    *,
    detection_masks: Sequence[dict] | None = None,
    truth_masks: Sequence[dict] | None = None,
) -> list[Section]:
    """Sections of one task; plots go to `folder`. Nothing where the matches are not known.

    Args:
        title: what the task is called, such as boxes.
        detection_masks, truth_masks: by row of `arrays.columns`, for segm.
    """
    columns = arrays.columns
    if columns is None or columns.truth_ignored.all():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    if arrays.task != "keypoints":  # overlaps of other classes' objects are not defined by their keypoints
        pairs = overlaps(columns, BACKGROUND_IOU, detection_masks=detection_masks, truth_masks=truth_masks)
        sections += [_errors(title, arrays, columns, pairs, folder), _confusion(title, arrays, columns, pairs, folder)]
    sections += [_calibration(title, arrays, folder), _sizes(title, arrays)]
    return [section for section in sections if section is not None]


def _errors(title: str, arrays: CocoArrays, columns: MatchColumns, pairs: Overlaps, folder: Path) -> Section | None:
    split = error_split(columns, pairs)
    if split is None:
        return None
    path = folder / f"{arrays.task}_errors.png"
    error_bars(split, path)
    rows = [[kind, split.counts[kind], split.delta_ap50[kind], ERROR_MEANINGS[kind]] for kind in ERROR_MEANINGS]
    return Section(
        f"Errors: {title}",
        [
            Text(
                "Each false detection and each missed object has one cause (TIDE, arXiv:2008.08115). What mending all of "
                "one kind would gain is no part of a sum: the kinds depend on each other."
            ),
            Figure(path, "AP50 that mending all errors of a kind would gain, and how many there are."),
            Table(["kind", "count", "AP50 gained", "what it is"], rows),
        ],
    )


def _confusion(title: str, arrays: CocoArrays, columns: MatchColumns, pairs: Overlaps, folder: Path) -> Section:
    heading = f"Confusion: {title}"
    best = best_threshold(arrays.matches)
    score = _WITHOUT_HITS if best is None else best
    why_none = no_detection_from(columns.detection_score, score)
    if why_none:
        return Section(heading, [Text(f"There is no confusion matrix: {why_none}.")])
    matrix = confusion_matrix(columns, pairs, score=score)
    path = folder / f"{arrays.task}_confusion.png"
    chosen = " (where F1 is best)" if best is not None else ""
    explanation = (
        f"Detections from score {score:.2f} on{chosen}, paired with objects by IoU from {matrix.iou:g} whatever the classes, "
        "best score first. The last column holds missed objects, the last row detections of nothing."
    )
    blocks: list = [Text(explanation)]
    if confusion_heatmap(matrix, path):
        blocks.append(
            Figure(path, "Rows are annotated classes, columns detected ones; colour is the share of the row.")
        )
    pairs_of_classes = matrix.confusions(_MOST_CONFUSIONS)
    if pairs_of_classes:
        blocks.append(Table(["annotated", "detected as", "count"], [list(row) for row in pairs_of_classes]))
    elif len(columns.class_names) > 1:
        blocks.append(Text("No object was taken for one of another class."))
    return Section(heading, blocks)


def _calibration(title: str, arrays: CocoArrays, folder: Path) -> Section:
    heading = f"Calibration: {title}"
    found = calibration(arrays.matches)
    if isinstance(found, str):
        return Section(heading, [Text(f"There is no calibration: {found}.")])
    path = folder / f"{arrays.task}_calibration.png"
    reliability(found, arrays.matches.iou, path)
    caption = (
        "How often detections of a score met an object, with their number. The expected calibration error, "
        f"{found.error:.3f}, is the mean distance of the two over all detections; thresholds on scores mean most "
        "where it is small."
    )
    return Section(heading, [Figure(path, caption)])


def _sizes(title: str, arrays: CocoArrays) -> Section:
    rows = []
    for row in by_size(arrays):
        high = "" if row.high >= 1e10 else f" to {row.high**0.5:g}²"
        size = "all" if row.name == "all" else f"{row.name}: {row.low**0.5:g}²{high or ' and more'} pixels"
        rows.append([size, row.objects, row.ap, row.ap50, row.ar])
    return Section(f"Sizes: {title}", [Table(["objects", "count", "AP", "AP50", "AR"], rows, bar_columns=(2, 3, 4))])
