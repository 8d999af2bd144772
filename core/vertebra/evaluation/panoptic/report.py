"""What the report shows of a panoptic evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.panoptic.dataset import PanopticTruth
from vertebra.evaluation.report.segmentation_pictures import Read, draw_pairs
from vertebra.visualize import draw_panoptic
from vertebra_eval.panoptic.counts import ImageCounts
from vertebra_eval.panoptic.quality import PanopticQuality
from vertebra_eval.panoptic.runs import IdRuns, read_id_runs
from vertebra_eval.report.blocks import Facts, Gallery, Section, Table
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.segmentation_plots import quality_bars

__all__ = ["PredictedImage", "panoptic_sections"]


@dataclass
class PredictedImage:
    """A prediction that is kept to be drawn."""

    key: ImageKey
    runs: IdRuns
    segments: Sequence[Mapping]
    counts: ImageCounts

    @property
    def badness(self) -> float:
        """Ascending: the worst image first; without anything to count, last."""
        return 1.0 if self.counts.quality is None else self.counts.quality


def panoptic_sections(
    quality: PanopticQuality,
    truth: PanopticTruth,
    worst: Sequence[PredictedImage],
    folder: Path,
    pictures: int,
    read: Read,
) -> list[Section]:
    """Plots into `folder/plots`, pictures into `folder/pictures/panoptic`, and the sections that show them."""
    rows = list(quality.per_class.values())
    plot = quality_bars(
        [row.name for row in rows],
        [row.pq for row in rows],
        measure="PQ",
        mean=quality.all.pq,
        second=[row.sq for row in rows],
        second_measure="SQ",
    )
    caption = "PQ over SQ of each class, best first; where SQ is far above PQ, segments are not found."
    figures = write_plots([("panoptic_class_pq", plot, caption)], folder / "plots")
    sections = []
    if figures:
        table = Table(
            ["class", "kind", "found (TP)", "false (FP)", "missed (FN)"],
            [[r.name, "thing" if r.isthing else "stuff", r.tp, r.fp, r.fn] for r in rows if r.pq is not None],
        )
        sections.append(Section("Panoptic: segments", [*figures, table]))
    drawn = draw_pairs((_item(image, truth) for image in worst), folder / "pictures" / "panoptic", pictures, read)
    if drawn:
        said = "Ground truth on the left, the prediction on the right; the images of lowest PQ come first."
        sections.append(Section("Panoptic: the worst images", [Gallery(drawn, said)]))
    tp, fp, fn = (sum(getattr(row, name) for row in rows) for name in ("tp", "fp", "fn"))
    facts = {
        "images": f"{len(truth.keys()):,}",
        "classes that occur": f"{quality.all.n} of {len(rows)}",
        "segments found": f"{tp:,} of {tp + fn:,}",
        "false segments": f"{fp:,}",
    }
    return [*sections, Section("Panoptic", [Facts(facts)])]


def _item(image: PredictedImage, truth: PanopticTruth) -> tuple[str, Callable, Callable, str]:
    record = truth.record(image.key)

    def draw_truth(pixels: np.ndarray) -> np.ndarray:
        ids = read_id_runs(record["pan_seg_file_name"]).pixels()
        return draw_panoptic(pixels, ids, record["segments_info"], truth.thing_names, truth.stuff_names)

    def draw_prediction(pixels: np.ndarray) -> np.ndarray:
        return draw_panoptic(pixels, image.runs.pixels(), image.segments, truth.thing_names, truth.stuff_names)

    counts = image.counts
    quality = "nothing to count" if counts.quality is None else f"PQ {counts.quality:.3f}"
    said = f"{quality}, {len(counts.matched)} found, {len(counts.false)} false, {len(counts.missed)} missed"
    return image.key.file_name or "", draw_truth, draw_prediction, said
