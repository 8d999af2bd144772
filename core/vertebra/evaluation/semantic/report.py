"""What the report shows of a semantic evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vertebra.evaluation.report.segmentation_pictures import draw_sheets
from vertebra.evaluation.semantic.tally import DOUBT_LEVELS, Judged
from vertebra.visualize import draw_semantic_panel
from vertebra_eval.report.blocks import Facts, Gallery, Section
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.segmentation_plots import confusion_map, quality_bars

if TYPE_CHECKING:
    from vertebra.evaluation.semantic.evaluator import SemSegEvaluator

__all__ = ["semantic_sections"]


def semantic_sections(evaluator: SemSegEvaluator, folder: Path, pictures: int) -> list[Section]:
    """Plots into `folder/plots`, pictures into `folder/pictures/semantic`, and the sections that show them."""
    scores, tally, labels = evaluator.scores, evaluator.merged, evaluator.labels
    boundary = scores.column("BoundaryIoU", labels) if tally.boundary is not None else None
    bars = quality_bars(
        labels,
        scores.column("IoU", labels),
        measure="IoU",
        mean=scores.metrics["sem_seg/mIoU"],
        second=boundary,
        second_measure="boundary IoU",
    )
    over = "IoU over boundary IoU" if boundary is not None else "IoU"
    confusion = confusion_map(tally.counts.numpy()[:-1, :-1], [*labels, "(none)"])
    mixed = "Where the pixels of each true class went. Off the diagonal is what is mixed up."
    plots = [
        ("sem_seg_class_iou", bars, f"{over} of each class, best first; classes without ground truth are not shown."),
        ("sem_seg_confusion", confusion, mixed),
    ]
    figures = write_plots(plots, folder / "plots")
    sections = [Section("Plots: semantic", figures)] if figures else []
    drawn = draw_sheets((_item(image, evaluator) for image in tally.worst), folder / "pictures" / "semantic", pictures)
    if drawn:
        said = (
            "Ground truth and prediction; below, what is wrong (red) and not judged (hatched black), and where the "
            "model was undecided (light). The images of lowest mean IoU come first."
        )
        sections.append(Section("Semantic: the worst images", [Gallery(drawn, said)]))
    return [*sections, Section("Semantic ground truth", [_facts(evaluator)])]


def _item(image: Judged, evaluator: SemSegEvaluator) -> tuple[str, Callable[[np.ndarray], np.ndarray], str]:
    names = evaluator.class_names
    quality = float(image.quality)
    said = "no true class" if np.isnan(quality) else f"mean IoU {quality:.3f}"

    def draw(pixels: np.ndarray) -> np.ndarray:
        return draw_semantic_panel(
            pixels,
            image.codes.numpy().astype(np.int64),
            evaluator.truth(image.key),
            names,
            doubt=None if image.doubt is None else image.doubt.numpy() / np.float32(DOUBT_LEVELS),
            ignore_label=len(names),
            said=said,
        )

    return image.key.file_name or "", draw, said if np.isnan(quality) else f"{said} over its classes"


def _facts(evaluator: SemSegEvaluator) -> Facts:
    counts = evaluator.merged.counts.numpy()
    true, ignored = counts[:-1].sum(), counts[-1].sum()
    present = int((counts[:-1].sum(axis=1) > 0).sum())
    return Facts(
        {
            "images": f"{len(evaluator.merged.keys):,}",
            "classes that occur": f"{present} of {len(evaluator.class_names)}",
            "pixels with a class": f"{true:,}",
            "pixels without": f"{ignored:,} ({ignored / max(true + ignored, 1):.1%}), label {evaluator.ignore_label}",
        }
    )
