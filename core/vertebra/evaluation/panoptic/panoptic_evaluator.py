"""Panoptic quality of a model's outputs: `PanopticEvaluator`."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.extra_fields import picture_reader
from vertebra.data.images.read import image_size
from vertebra.data.semantic.label_facts import evenly_spaced
from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.evaluator import Evaluator
from vertebra.evaluation.panoptic.dataset import PanopticTruth
from vertebra.evaluation.panoptic.report import PredictedImage, panoptic_sections
from vertebra.runtime.distributed import gather_to_main, on_main_process
from vertebra_eval.analysis import ImageSums, Intervals, measured_intervals
from vertebra_eval.files import write_text
from vertebra_eval.panoptic.counts import VOID, ImageCounts, Segments, count_image
from vertebra_eval.panoptic.quality import PanopticQuality, panoptic_quality
from vertebra_eval.panoptic.runs import IdRuns, read_id_runs, write_segment_ids
from vertebra_eval.report.blocks import Section
from vertebra_eval.resamples import RESAMPLES, check_resamples

__all__ = ["PanopticEvaluator"]

logger = logging.getLogger(__name__)

_FOLDER = "panoptic_predictions"
_WORST = 24  # images kept for the report
_CHECKED = 20  # PNG files that are read before a training


class PanopticEvaluator(Evaluator):
    """PQ, SQ and RQ of the outputs' `panoptic_seg`, as panopticapi has them.

    Metrics: `panoptic/PQ`, `SQ`, `RQ`, each also with `_things` and `_stuff`, and `PQ-<class>`, `SQ-<class>`,
    `RQ-<class>`: fractions. Classes that occur in neither ground truth nor predictions are excluded from the means.

    Ground truth is read from the PNG that each dataset dict names in `pan_seg_file_name`, with its `segments_info`.
    Images that were not predicted count as missed, predicted segments without a pixel are dropped; both in `notes`.

    Args:
        dataset: injected; `.dicts` and `.metadata` (`thing_classes`, `stuff_classes` and, to write results with the
            dataset's own category ids, `thing_dataset_id_to_contiguous_id` and the same for stuff).
        output_dir: injected. None: nothing is written.
        save_predictions: write COCO's result files, `panoptic_predictions.json` and a PNG for each image.
        resamples: of the images, for the 95 % intervals of the means; 0: no intervals.
    """

    def __init__(
        self,
        dataset: Any,
        output_dir: str | Path | None = None,
        *,
        save_predictions: bool = True,
        resamples: int = RESAMPLES,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.sums_dir = None if output_dir is None else Path(output_dir)
        self.output_dir = self.sums_dir if save_predictions else None
        self.resamples = check_resamples(resamples)
        self.truth = PanopticTruth(dataset)
        self.reset()

    def reset(self) -> None:
        self.counts: dict[ImageKey, ImageCounts] = {}
        self.records: dict[ImageKey, dict] = {}  # COCO's results, where they are written
        self.worst: list[PredictedImage] = []
        self.quality: PanopticQuality | None = None
        self.reasons, self.notes, self.intervals, self.files = {}, [], {}, {}

    def check(self) -> None:
        """All records and the sizes of all PNG files; some of these are read, at even distances."""
        keys = self.truth.keys()
        for key in keys:
            path = self._true_segments(key)[0]
            record = self.truth.record(key)
            size, wanted = image_size(path), (record.get("height"), record.get("width"))
            if None not in wanted and size != wanted:
                raise DataError(
                    f"{path}: {size[1]}x{size[0]} pixels (width x height), its image {wanted[1]}x{wanted[0]}"
                )
        for row in evenly_spaced(len(keys), _CHECKED):
            path, truth = self._true_segments(keys[row])
            runs = read_id_runs(path)
            count_image(runs, truth, runs, truth.with_pixels(runs), path)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Compare each image with its ground truth.

        Raises:
            DataError: no `panoptic_seg` in an output, ids without a segment, classes outside the dataset's, another
                size than the ground truth's.
        """
        for record, output in zip(inputs, outputs, strict=True):
            key = ImageKey.of(record)
            if key in self.counts:
                continue
            where = f"image {key.image_id!r}"
            runs, infos = _prediction(output, where)
            predicted = Segments.of(self.truth.with_rows(infos, where), self.truth.rows, where)
            num_segments = len(predicted)
            predicted = predicted.with_pixels(runs)
            path, truth = self._true_segments(key)
            counts = count_image(read_id_runs(path), truth, runs, predicted, f"{where} ({path})")
            counts.num_empty = num_segments - len(predicted)
            self.counts[key] = counts
            self._keep(PredictedImage(key, runs, infos, counts))
            if self.output_dir is not None:
                self.records[key] = self._write(self.output_dir / _FOLDER, key, runs, predicted)

    def evaluate(self) -> dict[str, float | None]:
        """The metrics of all processes' images."""
        shards = gather_to_main((self.counts, self.records, self.worst))
        result = on_main_process(lambda: self._evaluate_all(shards or []))
        self.quality, self.intervals, self.files = result
        self.reasons, self.notes = self.quality.reasons, self.quality.notes
        return self.quality.metrics

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        if self.quality is None:
            return []
        read = picture_reader(self.dataset.metadata)
        return panoptic_sections(self.quality, self.truth, self.worst, folder, pictures, read)

    def _evaluate_all(self, shards: Sequence[tuple]) -> tuple[PanopticQuality, Intervals, dict[str, Path]]:
        counts: dict[ImageKey, ImageCounts] = {}
        records: dict[ImageKey, dict] = {}
        kept: dict[ImageKey, PredictedImage] = {}
        for shard_counts, shard_records, shard_worst in reversed(shards):  # the first process's stay
            counts |= shard_counts
            records |= shard_records
            kept |= {image.key: image for image in shard_worst}
        self.worst = sorted(kept.values(), key=lambda image: (image.badness, str(image.key)))[:_WORST]
        keys = self.truth.keys()
        missing = [key for key in keys if key not in counts]
        for key in missing:
            counts[key] = self._all_missed(key)
        quality = panoptic_quality(self.truth.classes, [counts[key] for key in keys])
        if missing:
            quality.notes.append(
                f"{len(missing)} of the dataset's {len(keys)} images were not predicted; their segments count as missed"
            )
        num_empty = sum(counts[key].num_empty for key in keys)
        if num_empty:
            quality.notes.append(f"{num_empty} predicted segments have no pixels and were dropped")
        sums = ImageSums.of_panoptic([key.name for key in keys], quality.classes, quality.counts)
        intervals = measured_intervals(sums, resamples=self.resamples).of_task("panoptic")
        quality.notes += intervals.notes
        for note in quality.notes:
            logger.warning("evaluation: %s", note)
        files = self._write_json([records[key] for key in keys if key in records])
        return quality, intervals, files | sums.write_to(self.sums_dir)

    def _true_segments(self, key: ImageKey) -> tuple[str, Segments]:
        """The PNG of an image's ground truth, and its segments."""
        where, record = f"image {key.image_id!r}", self.truth.record(key)
        path = record.get("pan_seg_file_name")
        if path is None:
            raise DataError(
                f"{where}: its dataset dict has no pan_seg_file_name; panoptic ground truth is needed "
                "(format coco: set `panoptic`)"
            )
        return path, self.truth.segments(record, where)

    def _all_missed(self, key: ImageKey) -> ImageCounts:
        truth = self.truth.segments(self.truth.record(key), f"image {key.image_id!r}")
        nothing = np.zeros(0, dtype=np.int64)
        return ImageCounts(nothing, np.zeros(0), nothing, truth.classes[~truth.crowd])

    def _keep(self, image: PredictedImage) -> None:
        """Remember the worst images only."""
        self.worst.append(image)
        if len(self.worst) >= 2 * _WORST:
            self.worst = sorted(self.worst, key=lambda image: image.badness)[:_WORST]

    def _write(self, folder: Path, key: ImageKey, runs: IdRuns, predicted: Segments) -> dict:
        """The image's PNG, and its record for the JSON."""
        if len(predicted) and predicted.ids.max() >= 2**24:
            raise DataError(
                f"image {key.image_id!r}: segment id {predicted.ids.max()} does not fit in a panoptic PNG (below 2^24)"
            )
        folder.mkdir(parents=True, exist_ok=True)
        name = self.truth.result_name(key)
        write_segment_ids(runs.pixels(), folder / name)
        pixels = Counter(dict(zip(*np.unique(runs.pixels(), return_counts=True), strict=True)))
        segments = [
            {"id": int(i), "category_id": self.truth.classes[row].category_id, "area": int(pixels[i])}
            for i, row in zip(predicted.ids, predicted.classes, strict=True)
        ]
        return {"image_id": key.image_id, "file_name": name, "segments_info": segments}

    def _write_json(self, records: list[dict]) -> dict[str, Path]:
        if self.output_dir is None:
            return {}
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = self.output_dir / f"{_FOLDER}.json"
        categories = [
            {"id": known.category_id, "name": known.name, "isthing": int(known.isthing)} for known in self.truth.classes
        ]
        write_text(path, json.dumps({"annotations": records, "categories": categories}) + "\n")
        return {"panoptic_predictions": path}


def _prediction(output: Mapping[str, Any], where: str) -> tuple[IdRuns, list[dict]]:
    """Ids, with nothing but 0 for void, and segments of one output."""
    if "panoptic_seg" not in output:
        raise DataError(
            f"the output for {where} has no 'panoptic_seg', only {', '.join(map(repr, output)) or 'nothing'}.\n"
            "  PanopticEvaluator evaluates panoptic maps; choose evaluators for the tasks of the model's heads"
        )
    ids, infos = output["panoptic_seg"]
    if infos is None:
        raise DataError(f"the output for {where}: panoptic_seg needs its list of segments (segments_info), got None")
    ids = np.asarray(ids.detach().cpu() if hasattr(ids, "detach") else ids)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise DataError(
            f"the output for {where}: the ids of panoptic_seg are {ids.dtype} of shape {ids.shape}; "
            "expected whole numbers of shape (H, W)"
        )
    return IdRuns.of(np.where(ids < 0, VOID, ids)), list(infos)  # some models mark void by -1
