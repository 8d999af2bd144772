"""Semantic segmentation: IoU and its relatives from a confusion matrix, by `SemSegEvaluator`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vertebra.data.extra_fields import picture_reader
from vertebra.data.semantic.label_facts import evenly_spaced
from vertebra.data.semantic.label_reader import LabelReader, label_file
from vertebra.errors import DataError, RecipeError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.evaluator import Evaluator
from vertebra.evaluation.semantic.pixels import (
    boundary_counts,
    boundary_radius,
    detectron2_boundary_counts,
    image_quality,
    pixel_counts,
    to_codes,
)
from vertebra.evaluation.semantic.report import semantic_sections
from vertebra.evaluation.semantic.tally import Tally
from vertebra.runtime.distributed import gather_to_main, on_main_process
from vertebra.visualize import entropy_map
from vertebra_eval.analysis import ImageSums, Intervals, measured_intervals
from vertebra_eval.report.blocks import Section
from vertebra_eval.resamples import RESAMPLES, check_resamples
from vertebra_eval.semantic import SemanticScores, semantic_scores

__all__ = ["SemSegEvaluator"]

_CHECKED = 20  # label files that are read before a training

logger = logging.getLogger(__name__)


class SemSegEvaluator(Evaluator):
    """How well a class was given to each pixel, over all pixels of the dataset together.

    Metrics: `sem_seg/mIoU`, `fwIoU` (weighted by how frequent a class is), `pixel_accuracy`, `mean_accuracy`, `mDice`,
    `mF1` (the same), `mPrecision`, `mBoundaryIoU`, and for each class `IoU-<class>`, `Dice-`, `F1-` (the same),
    `precision-`, `recall-`, `BoundaryIoU-<class>`: fractions, from exact counts. Classes that the ground truth does
    not have are excluded from the means and have no number; `reasons` and `notes` name them.

    Takes `sem_seg` of the outputs, scores (K, H, W) or labels (H, W), in the original image's size, and counts where
    it lies: nothing waits for the device until `evaluate`. Ground truth is the file that the dataset dict names in
    `sem_seg_file_name`.

    Args:
        dataset: injected; `.dicts`, and `.metadata` with `stuff_classes` and perhaps `ignore_label` (else 255).
        boundary_iou: IoU of the pixels near contours: `per_class` as it is defined, `detectron2` as Detectron2 0.6
            computes it (for comparisons only), or `off`.
        boundary_ratio: how far inside a contour that reaches, as a part of the image's diagonal.
        uncertainty: measure how undecided the scores are, taken as logits, for the pictures of the worst images.
        output_dir: injected; what each image adds is written there, for comparisons. None: nothing is written.
        resamples: of the images, for the 95 % intervals of the means; 0: no intervals.
    """

    def __init__(
        self,
        dataset: Any,
        output_dir: str | Path | None = None,
        *,
        boundary_iou: Literal["per_class", "detectron2", "off"] = "per_class",
        boundary_ratio: float = 0.02,
        uncertainty: bool = True,
        resamples: int = RESAMPLES,
    ) -> None:
        super().__init__()
        if not 0 < boundary_ratio < 1:
            raise RecipeError(
                f"SemSegEvaluator: boundary_ratio is {boundary_ratio}; expected a part of 1, such as 0.02"
            )
        names = getattr(dataset.metadata, "stuff_classes", None)
        if not names:
            raise DataError(
                "SemSegEvaluator needs the names of the labels: the dataset's metadata has no stuff_classes.\n"
                "  Set them where the dataset is registered (formats semantic_folder: `classes`, coco: `stuff_classes`)"
            )
        self.dataset = dataset
        self.class_names = list(names)
        times = Counter(self.class_names)
        self.labels = [name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(self.class_names)]
        """Class names as metric keys need them: each once."""
        self.ignore_label = getattr(dataset.metadata, "ignore_label", 255)
        self.label_reader = LabelReader(dataset.metadata, none=len(self.class_names))
        self.boundary_iou = boundary_iou
        self.boundary_ratio = boundary_ratio
        self.uncertainty = uncertainty
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.resamples = check_resamples(resamples)
        self._rows: dict[ImageKey, int] | None = None
        self.reset()

    def check(self) -> None:
        """Some of the label files are read, at even distances."""
        for row in evenly_spaced(len(self.dataset.dicts), _CHECKED):
            record = self.dataset.dicts[row]
            self._truth(ImageKey.of(record), (record.get("height"), record.get("width")))

    def reset(self) -> None:
        self.tally = Tally(len(self.class_names))
        self.merged: Tally | None = None
        self.scores: SemanticScores | None = None
        self.reasons, self.notes, self.intervals, self.files = {}, [], {}, {}

    @torch.no_grad()
    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count the pixels of each image.

        Raises:
            DataError: no `sem_seg` in an output, a number of scores that is not that of the classes, another size than
                the ground truth's, true labels that are not classes. Predicted ones are looked at in `evaluate`.
        """
        for record, output in zip(inputs, outputs, strict=True):
            key = ImageKey.of(record)
            if self.tally.has(key):
                continue
            labels = self._predicted(output, key)
            truth = self._truth(key, tuple(labels.shape)).to(labels.device, non_blocking=True)
            size = len(self.class_names)
            codes = to_codes(labels, size, self.ignore_label)
            counts = pixel_counts(truth, codes, size)
            boundary = None
            if self.boundary_iou != "off":
                count = boundary_counts if self.boundary_iou == "per_class" else detectron2_boundary_counts
                radius = boundary_radius((truth.shape[0], truth.shape[1]), self.boundary_ratio)
                boundary = count(truth, codes, size, radius)
            self.tally.add(key, counts, boundary, codes, image_quality(counts), self._doubt(output["sem_seg"]))

    def evaluate(self) -> dict[str, float | None]:
        """The metrics of all processes' images.

        Raises:
            DataError: a model predicted labels that are not classes, or several processes counted the same images.
        """
        shards = gather_to_main(self.tally.on_cpu())
        self.scores, self.intervals, self.files = on_main_process(lambda: self._evaluate_all(shards or []))
        self.reasons, self.notes = self.scores.reasons, self.scores.notes
        return self.scores.metrics

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        if self.scores is None or self.merged is None:
            return []
        named = self.labels, self.ignore_label
        read = picture_reader(self.dataset.metadata)
        return semantic_sections(self.scores, self.merged, self.truth, *named, folder, pictures, read)

    def truth(self, key: ImageKey) -> np.ndarray:
        """(H, W) true codes of an image of the dataset, out of its label file.

        Raises:
            DataError: there is no such image or file, or the file has labels that are not classes.
        """
        record = self._record(key)
        if not self.label_reader.has_labels(record):
            raise DataError(
                f"image {key.image_id!r}: its dataset dict has no sem_seg_file_name; SemSegEvaluator needs label files "
                "(format semantic_folder, or coco with `sem_seg` or `panoptic_labels`)"
            )
        return self.label_reader.read(record)

    def _evaluate_all(self, shards: list[Tally]) -> tuple[SemanticScores, Intervals, dict[str, Path]]:
        self.merged = Tally.merged(shards)
        self._check_predicted(self.merged)
        counts = self.merged.counts.numpy()[:-1, :-1]  # without ignored pixels
        boundary = None if self.merged.boundary is None else self.merged.boundary.numpy()
        scores = semantic_scores(counts, boundary, self.labels)
        missing = len(self.dataset.dicts) - len(self.merged.keys)
        if missing > 0:
            scores.notes.append(
                f"sem_seg: {missing} of the dataset's {len(self.dataset.dicts)} images were not predicted; they are in "
                "none of the numbers"
            )
        intervals, files = Intervals(), {}
        if self.merged.keys:
            sums = self._sums(self.merged)
            intervals = measured_intervals(sums, resamples=self.resamples).of_task("sem_seg")
            scores.notes += intervals.notes
            files = sums.write_to(self.output_dir)
        for note in scores.notes:
            logger.warning("evaluation: %s", note)
        return scores, intervals, files

    def _sums(self, tally: Tally) -> ImageSums:
        """What each image adds, in the order of the dataset."""
        rows = sorted(tally.keys, key=lambda key: self._row_of(key))
        pixels = torch.stack([tally.keys[key] for key in rows]).numpy()
        boundary = pixels[:, 3:] if tally.boundary is not None else None
        return ImageSums.of_pixels([key.name for key in rows], self.labels, pixels[:, :3], boundary)

    def _doubt(self, sem_seg: Any) -> Tensor | None:
        """(H, W) entropy of the class probabilities from 0 to 1; None where there are no scores, or no wish for it."""
        given = torch.as_tensor(sem_seg)
        return entropy_map(given) if self.uncertainty and given.ndim == 3 else None

    def _predicted(self, output: Mapping[str, Any], key: ImageKey) -> Tensor:
        """(H, W) whole numbers, on the device they are on."""
        where = f"the output for image {key.image_id!r}"
        if "sem_seg" not in output:
            raise DataError(
                f"{where} has no 'sem_seg', only {', '.join(map(repr, output)) or 'nothing'}.\n"
                "  SemSegEvaluator evaluates one class per pixel; choose evaluators for the tasks of the model's heads"
            )
        given = torch.as_tensor(output["sem_seg"])
        if given.ndim == 3:
            if given.shape[0] != len(self.class_names):
                raise DataError(
                    f"{where}: sem_seg has scores of {given.shape[0]} classes, the dataset has {len(self.class_names)}"
                )
            return given.argmax(dim=0)
        if given.ndim != 2 or given.is_floating_point() or given.is_complex():
            raise DataError(
                f"{where}: sem_seg is {given.dtype} of shape {tuple(given.shape)}; expected scores (K, H, W), or "
                "whole numbers (H, W)"
            )
        return given

    def _record(self, key: ImageKey) -> Mapping[str, Any]:
        return self.dataset.dicts[self._row_of(key)]

    def _row_of(self, key: ImageKey) -> int:
        if self._rows is None:
            self._rows = {ImageKey.of(record): row for row, record in enumerate(self.dataset.dicts)}
        if key not in self._rows:
            raise DataError(f"image {key.image_id!r} ({key.file_name}) was predicted, but is not in the dataset")
        return self._rows[key]

    def _truth(self, key: ImageKey, size: tuple[int | None, ...]) -> Tensor:
        """(H, W) true codes int64, on the CPU; checked against `size` where it is known."""
        codes = torch.from_numpy(self.truth(key)).long()
        if None not in size and tuple(codes.shape) != size:
            path = label_file(self._record(key))
            raise DataError(
                f"{path}: the labels have {codes.shape[1]}x{codes.shape[0]} pixels (width x height), the prediction "
                f"for image {key.image_id!r} {size[1]}x{size[0]}"
            )
        return codes

    def _check_predicted(self, tally: Tally) -> None:
        """Labels that there are not have a column of their own."""
        wrong = int(tally.counts[:, -1].sum())
        if wrong:
            raise DataError(
                f"the model gave {wrong:,} pixels a label that is not a class: the dataset has {len(self.class_names)} "
                f"classes, numbered from 0, and {self.ignore_label} for none.\n"
                "  The weights are of a model for other classes, or classes are missing in metadata.stuff_classes"
            )
