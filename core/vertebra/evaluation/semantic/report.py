"""What the report shows of a semantic evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vertebra.data import read_image
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.report.segmentation_pictures import Read, draw_sheets
from vertebra.evaluation.semantic.tally import DOUBT_LEVELS, Judged, Tally
from vertebra.visualize import draw_semantic_panel
from vertebra_eval.report.blocks import Facts, Gallery, Section
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.segmentation_plots import confusion_map, quality_bars
from vertebra_eval.semantic import SemanticScores

__all__ = ["semantic_sections"]


Truth = Callable[[ImageKey], np.ndarray]
"""An image to its (H, W) true codes."""


def semantic_sections(
    scores: SemanticScores,
    tally: Tally,
    truth: Truth,
    labels: Sequence[str],
    ignore_label: int,
    folder: Path,
    pictures: int,
    read: Read = read_image,
) -> list[Section]:
    """Plots into `folder/plots`, pictures into `folder/pictures/semantic`, and the sections that show them.

    Args:
        scores, tally: of all images. truth: reads the ground truth of an image that is drawn.
        labels: of the classes, each once. ignore_label: label of the pixels that do not count.
    """
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
    drawn = draw_sheets(
        (_item(image, truth, labels) for image in tally.worst), folder / "pictures" / "semantic", pictures, read
    )
    if drawn:
        said = (
            "Ground truth and prediction; below, what is wrong (red) and not judged (hatched black), and where the "
            "model was undecided (light). The images of lowest mean IoU come first."
        )
        sections.append(Section("Semantic: the worst images", [Gallery(drawn, said)]))
    return [*sections, Section("Semantic ground truth", [_facts(tally, ignore_label)])]


def _item(image: Judged, truth: Truth, names: Sequence[str]) -> tuple[str, Callable[[np.ndarray], np.ndarray], str]:
    quality = float(image.quality)
    said = "no true class" if np.isnan(quality) else f"mean IoU {quality:.3f}"

    def draw(pixels: np.ndarray) -> np.ndarray:
        return draw_semantic_panel(
            pixels,
            image.codes.numpy().astype(np.int64),
            truth(image.key),
            list(names),
            doubt=None if image.doubt is None else image.doubt.numpy() / np.float32(DOUBT_LEVELS),
            ignore_label=len(names),
            said=said,
        )

    return image.key.file_name or "", draw, said if np.isnan(quality) else f"{said} over its classes"


def _facts(tally: Tally, ignore_label: int) -> Facts:
    counts = tally.counts.numpy()
    true, ignored = counts[:-1].sum(), counts[-1].sum()
    present = int((counts[:-1].sum(axis=1) > 0).sum())
    return Facts(
        {
            "images": f"{len(tally.keys):,}",
            "classes that occur": f"{present} of {len(counts) - 1}",
            "pixels with a class": f"{true:,}",
            "pixels without": f"{ignored:,} ({ignored / max(true + ignored, 1):.1%}), label {ignore_label}",
        }
    )
