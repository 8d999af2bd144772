"""What the report shows of a COCO evaluation: plots, the worst mistakes, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vertebra.data import read_image
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.report.crops import draw_mistakes
from vertebra.evaluation.report.mistakes import worst_false, worst_missed
from vertebra.evaluation.report.pictures import draw_pictures
from vertebra_eval.coco import CocoResult, DetectionColumns
from vertebra_eval.report.blocks import Facts, Gallery, Section
from vertebra_eval.report.coco_plots import TASK_TITLES, task_sections

__all__ = ["coco_sections"]

_MOST_MISTAKES = 8  # false detections, and as many missed objects
_WITHOUT_TRUTH = 0.5  # score from which on detections are drawn without ground truth


def coco_sections(
    truth: GroundTruth,
    table: DetectionColumns,
    results: dict[str, CocoResult],
    folder: Path,
    pictures: int,
    skeleton: Sequence[tuple[int, int]] = (),
    read: Callable[[str], np.ndarray] = read_image,
) -> list[Section]:
    """Plots of each task, the worst mistakes and pictures, and sections that show them.

    They go to `plots`, `mistakes` and `pictures` in `folder`.
    """
    sections: list[Section] = []
    for result in results.values():
        sections += task_sections(result, folder / "plots")
    first = next(iter(results.values()), None)
    threshold = None if first is None else first.matches.best_threshold(first.matches.half)
    if pictures:
        chosen = _WITHOUT_TRUTH if threshold is None else threshold
        if first is not None:
            count = min(pictures, _MOST_MISTAKES)
            sections += _mistakes(first, truth, table, chosen, folder / "mistakes", count, skeleton, read)
        matches = None if first is None else first.matches
        drawn = draw_pictures(truth, table, matches, chosen, folder / "pictures", pictures, skeleton, read)
        if drawn:
            explanation = f"Ground truth on the left, detections from score {chosen:.2f} on at the right."
            if first is not None:
                explanation += " The images with the most errors come first; the others are spread over the dataset."
            if threshold is not None:
                explanation += " At this score the F1 of all detections together is best."
            sections.append(Section("Pictures", [Gallery(drawn, explanation)]))
    return [*sections, Section("What was compared", [_facts(truth, table)])]


def _mistakes(
    result: CocoResult,
    truth: GroundTruth,
    table: DetectionColumns,
    threshold: float,
    folder: Path,
    count: int,
    skeleton: Sequence[tuple[int, int]],
    read: Callable[[str], np.ndarray],
) -> list[Section]:
    """Crops of the false detections of highest score and of the missed objects, at most `count` of each."""
    index = result.matches.half
    iou, measure = result.params.iou_thresholds[index], "OKS" if result.task == "keypoints" else "IoU"
    title = TASK_TITLES[result.task].lower()
    told = (
        (
            "false",
            worst_false,
            f"False detections (unmatched with objects of their class at {measure} {iou:.2f}), highest score first.",
        ),
        (
            "missed",
            worst_missed,
            f"Missed objects: unmatched by detections of score {threshold:.2f} or more. First those unmatched at "
            "any score, then by that score; large ones before small ones.",
        ),
    )
    galleries = []
    for prefix, choose, explanation in told:
        mistakes = choose(result.matches, index, threshold, count)
        drawn = draw_mistakes(mistakes, truth, table, threshold, folder, prefix, skeleton, read)
        if drawn:
            galleries.append(Gallery(drawn, f"{explanation} White corners mark the place in both halves."))
    return [Section(f"Worst mistakes: {title}", galleries)] if galleries else []


def _facts(truth: GroundTruth, table: DetectionColumns) -> Facts:
    facts = {"images": f"{len(truth.keys):,}", "classes": f"{len(truth.class_names):,}"}
    if truth.annotated:
        crowd = int(truth.objects.crowd.sum())
        facts["objects"] = f"{len(truth.objects) - crowd:,}"
        facts["crowd regions"] = f"{crowd:,}"
    else:
        facts["objects"] = "unknown, there are no annotations"
    return Facts(facts | {"detections": f"{len(table):,}", "read from": truth.source})
