"""What a report shows of one COCO task without pictures: its plots, errors, calibration, confusion and sizes."""

from __future__ import annotations

from pathlib import Path

from vertebra_eval.coco.metrics import coco_metrics
from vertebra_eval.coco.result import CocoResult
from vertebra_eval.report.analysis_section import analysis_sections
from vertebra_eval.report.blocks import Section
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.plots import class_bars, pr_curves, score_histogram

__all__ = ["TASK_TITLES", "task_sections"]

TASK_TITLES = {"bbox": "Boxes", "segm": "Masks", "boundary": "Boundaries of masks", "keypoints": "Keypoints"}


def task_sections(result: CocoResult, folder: Path) -> list[Section]:
    """Sections of one task; plots go to `folder`, which is made."""
    task, names = result.task, result.matches.class_names
    metrics, _ = coco_metrics(result, names if result.params.use_categories else [])
    ap, ap50 = ([metrics.get(f"{task}/{name}-{label}") for label in names] for name in ("AP", "AP50"))
    scores = score_histogram(result, result.matches.best_threshold(result.matches.half))
    bars = class_bars(names, ap, ap50) if len(names) > 1 else None
    plots = [
        ("pr_curves", pr_curves(result), "Precision at each recall, mean over the classes that have ground truth."),
        ("scores", scores, "Scores of matched and unmatched detections; a good model separates them."),
        ("class_ap", bars, "AP over AP50 of each class, best first; classes without ground truth are not shown."),
    ]
    title = TASK_TITLES[task].lower()
    figures = write_plots(plots, folder, prefix=f"{task}_")
    own = [Section(f"Plots: {title}", figures)] if figures else []
    return [*own, *analysis_sections(title, result, folder)]
