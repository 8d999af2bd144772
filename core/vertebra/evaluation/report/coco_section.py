"""What the report shows of a COCO evaluation: plots, the worst mistakes, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vertebra.evaluation.detections import DetectionTable
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.report.crops import draw_mistakes
from vertebra.evaluation.report.mistakes import worst_false, worst_missed
from vertebra.evaluation.report.pictures import draw_pictures
from vertebra_eval.coco.curves import CocoArrays, best_threshold
from vertebra_eval.coco.match_columns import MatchColumns
from vertebra_eval.coco.metrics import coco_metrics
from vertebra_eval.report.analysis_section import analysis_sections
from vertebra_eval.report.blocks import Facts, Gallery, Section
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.plots import class_bars, pr_curves, score_histogram

__all__ = ["coco_sections"]

_TITLES = {"bbox": "Boxes", "segm": "Masks", "keypoints": "Keypoints"}
_MOST_MISTAKES = 8  # false detections, and as many missed objects
_WITHOUT_TRUTH = 0.5  # score from which on detections are drawn without ground truth


def coco_sections(
    truth: GroundTruth,
    table: DetectionTable,
    arrays: dict[str, CocoArrays],
    folder: Path,
    pictures: int,
    skeleton: Sequence[tuple[int, int]] = (),
) -> list[Section]:
    """Plots of each task, the worst mistakes and pictures, and sections that show them.

    They go to `plots`, `mistakes` and `pictures` in `folder`.
    """
    sections: list[Section] = []
    for task, counted in arrays.items():
        sections += _task_section(task, counted, truth, folder / "plots")
        masks = _masks(counted, truth, table) if task == "segm" else {}
        sections += analysis_sections(_TITLES[task].lower(), counted, folder / "plots", **masks)
    first = next(iter(arrays.values()), None)
    threshold = None if first is None else best_threshold(first.matches)
    if pictures:
        chosen = _WITHOUT_TRUTH if threshold is None else threshold
        if first is not None and first.columns is not None:
            sections += _mistakes(
                first, first.columns, truth, table, chosen, folder / "mistakes", min(pictures, _MOST_MISTAKES), skeleton
            )
        matches = None if first is None else first.matches
        drawn = draw_pictures(truth, table, matches, chosen, folder / "pictures", pictures, skeleton)
        if drawn:
            explanation = f"Ground truth on the left, detections from score {chosen:.2f} on at the right."
            if first is not None:
                explanation += " The images with the most errors come first; the others are spread over the dataset."
            if threshold is not None:
                explanation += " At this score the F1 of all detections together is best."
            sections.append(Section("Pictures", [Gallery(drawn, explanation)]))
    return [*sections, Section("What was compared", [_facts(truth, table)])]


def _task_section(task: str, arrays: CocoArrays, truth: GroundTruth, folder: Path) -> list[Section]:
    metrics, _ = coco_metrics(arrays, truth.class_names)
    ap, ap50 = ([metrics[f"{task}/{name}-{label}"] for label in truth.class_names] for name in ("AP", "AP50"))
    scores = score_histogram(arrays, best_threshold(arrays.matches))
    bars = class_bars(truth.class_names, ap, ap50) if len(truth.class_names) > 1 else None
    plots = [
        ("pr_curves", pr_curves(arrays), "Precision at each recall, mean over the classes that have ground truth."),
        ("scores", scores, "Scores of matched and unmatched detections; a good model separates them."),
        ("class_ap", bars, "AP over AP50 of each class, best first; classes without ground truth are not shown."),
    ]
    figures = write_plots(plots, folder, prefix=f"{task}_")
    return [Section(f"Plots: {_TITLES[task].lower()}", figures)] if figures else []


def _mistakes(
    arrays: CocoArrays,
    columns: MatchColumns,
    truth: GroundTruth,
    table: DetectionTable,
    threshold: float,
    folder: Path,
    count: int,
    skeleton: Sequence[tuple[int, int]],
) -> list[Section]:
    """Crops of the false detections of highest score and of the missed objects, at most `count` of each."""
    iou = arrays.matches.iou
    boxes, measure = table.boxes[columns.detection_row], "OKS" if arrays.task == "keypoints" else "IoU"
    title = _TITLES[arrays.task].lower()
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
        mistakes = choose(columns, boxes, threshold, count, iou)
        drawn = draw_mistakes(mistakes, truth, table, threshold, folder, prefix, skeleton)
        if drawn:
            galleries.append(Gallery(drawn, f"{explanation} White corners mark the place in both halves."))
    return [Section(f"Worst mistakes: {title}", galleries)] if galleries else []


def _masks(arrays: CocoArrays, truth: GroundTruth, table: DetectionTable) -> dict:
    """Masks of detections and objects, by row of the match columns."""
    columns = arrays.columns
    if columns is None or table.masks is None:
        return {}
    return {"detection_masks": table.masks[columns.detection_row], "truth_masks": truth.columns("segm").masks}


def _facts(truth: GroundTruth, table: DetectionTable) -> Facts:
    facts = {"images": f"{len(truth.keys):,}", "classes": f"{len(truth.class_names):,}"}
    if truth.annotated:
        crowd = int(truth.objects.crowd.sum())
        facts["objects"] = f"{len(truth.objects) - crowd:,}"
        facts["crowd regions"] = f"{crowd:,}"
    else:
        facts["objects"] = "unknown, there are no annotations"
    return Facts(facts | {"detections": f"{len(table):,}", "read from": truth.source})
