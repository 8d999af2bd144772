"""Evaluate result files of any tool against ground truth files, without a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra_eval.analysis.image_sums import ImageSums
from vertebra_eval.analysis.intervals import measured_intervals
from vertebra_eval.analysis.measured import Measured, MeasuredAP
from vertebra_eval.coco import (
    CocoNumbers,
    CocoResult,
    GroundTruthColumns,
    coco_evaluate,
    read_ground_truth,
)
from vertebra_eval.coco.reasons import classes_without_detections
from vertebra_eval.crowdpose import crowdpose_evaluate
from vertebra_eval.errors import DataError
from vertebra_eval.files import write_json
from vertebra_eval.label_maps import semantic_evaluate
from vertebra_eval.lvis import lvis_evaluate
from vertebra_eval.panoptic.files import panoptic_evaluate
from vertebra_eval.resamples import RESAMPLES
from vertebra_eval.result_files import read_results

__all__ = [
    "ResultNumbers",
    "evaluate_crowdpose_files",
    "evaluate_label_maps",
    "evaluate_lvis_files",
    "evaluate_result_files",
    "match_results",
]


@dataclass
class ResultNumbers:
    """What result files are worth; the fields are those of metrics.json.

    Args:
        metrics: flat keys `<task>/<name>`, fractions, None where undefined.
        intervals: (low, high) of some of them, 95 %: of many images, where few were measured.
        reasons: one sentence for each None. notes: what one should know before trusting the numbers.
        info: files, counts, seconds. result: of COCO's tasks, the arrays and matches.
        sums: of segmentation, what each image adds.
    """

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    result: CocoResult | None = None
    sums: ImageSums | None = None

    def with_intervals(self, task: str, measured: Measured, resamples: int, seed: int) -> ResultNumbers:
        """With the intervals of a task, and what there is to say about them; 0 resamples: as it is."""
        found = measured_intervals(measured, resamples=resamples, seed=seed).of_task(task)
        self.intervals |= found
        self.notes += found.notes
        self.info["resamples"] = resamples
        return self

    def write(self, path: Path) -> None:
        """As metrics.json has it."""
        content = {
            **self.metrics,
            "intervals": self.intervals,
            "reasons": self.reasons,
            "notes": self.notes,
            "info": self.info,
        }
        write_json(path, content)


def evaluate_result_files(
    annotations: str | Path,
    results: str | Path,
    task: str,
    *,
    annotations_folder: str | Path | None = None,
    results_folder: str | Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    **changes: Any,
) -> ResultNumbers:
    """Metrics of a result file, with intervals of the leading ones.

    Args:
        annotations, results: JSON files in COCO's formats.
        task: bbox, segm, keypoints, boundary or panoptic.
        annotations_folder, results_folder: of the PNG files, for panoptic only. None: the JSON's path without `.json`.
        resamples: of the bootstrap; 0: no intervals.
        changes: further arguments of `coco_evaluate`: `max_dets`, `iou_thresholds`, `area_ranges`, `sigmas`,
            `use_categories`, `confidence`; None counts as not given.

    Raises:
        DataError: files that cannot be used; names file and record.
    """
    start = time.perf_counter()
    changes = {name: value for name, value in changes.items() if value is not None}
    if task == "panoptic":
        if changes:
            raise DataError(f"panoptic quality has no parameter {', '.join(changes)}")
        quality = panoptic_evaluate(annotations, annotations_folder, results, results_folder)
        sums = ImageSums.of_panoptic(quality.images, quality.classes, quality.counts)
        numbers = ResultNumbers(dict(quality.metrics), {}, dict(quality.reasons), list(quality.notes), sums=sums)
        numbers.with_intervals(task, sums, resamples, seed)
        numbers.info |= _info(annotations, results, task, start)
        return numbers
    if annotations_folder is not None or results_folder is not None:
        raise DataError(f"folders of PNG files belong to the task panoptic, not to {task}")
    truth = read_ground_truth(annotations, task, area_of_box=changes.pop("area_of_box", None))
    found = match_results(results, truth, task, **changes)
    result = found.result
    lacking = classes_without_detections(result.num_truth[:, 0], result.num_detections, truth.category_names)
    notes = [*found.notes, *([lacking] if lacking else [])]
    numbers = ResultNumbers(dict(found), {}, found.reasons, notes, result=result)
    numbers.with_intervals(task, MeasuredAP(result.matches), resamples, seed)
    numbers.info |= _info(annotations, results, task, start)
    numbers.info |= {"images": truth.num_images, "objects": int((~truth.ignored).sum())}
    numbers.info |= {"detections": int(result.num_detections.sum())}
    return numbers


def evaluate_crowdpose_files(
    annotations: str | Path, results: str | Path, *, resamples: int = RESAMPLES, seed: int = 0
) -> ResultNumbers:
    """CrowdPose's metrics of a result file; see `crowdpose_evaluate`."""
    start = time.perf_counter()
    found = crowdpose_evaluate(str(annotations), str(results))
    numbers = ResultNumbers(dict(found), {}, found.reasons, found.notes)
    numbers.with_intervals("crowdpose", MeasuredAP(found.result.matches), resamples, seed)
    numbers.info |= _info(annotations, results, "crowdpose", start)
    return numbers


def evaluate_lvis_files(
    annotations: str | Path, results: str | Path, task: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> ResultNumbers:
    """LVIS' metrics of a result file; see `lvis_evaluate`."""
    start = time.perf_counter()
    found = lvis_evaluate(str(annotations), str(results), task)
    numbers = ResultNumbers(dict(found), {}, found.reasons, found.notes)
    numbers.with_intervals(task, MeasuredAP(found.result.matches), resamples, seed)
    numbers.info |= _info(annotations, results, f"lvis {task}", start)
    return numbers


def evaluate_label_maps(
    truth: str | Path,
    results: str | Path,
    classes: Sequence[str] | int,
    *,
    ignore_label: int = 255,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ResultNumbers:
    """Semantic segmentation's metrics of two folders; see `semantic_evaluate`."""
    start = time.perf_counter()
    scores = semantic_evaluate(truth, results, classes, ignore_label=ignore_label)
    assert scores.pixels is not None
    sums = ImageSums.of_pixels(scores.images, scores.labels, scores.pixels)
    numbers = ResultNumbers(scores.metrics, {}, scores.reasons, scores.notes, sums=sums)
    numbers.with_intervals("sem_seg", sums, resamples, seed)
    numbers.info |= _info(truth, results, "semantic", start)
    return numbers


def match_results(results: str | Path, truth: GroundTruthColumns, task: str, **changes: Any) -> CocoNumbers:
    """Read a result file and evaluate it; `changes` as for `coco_evaluate`."""
    return coco_evaluate(truth, read_results(results, truth, task), task, **changes)


def _info(annotations: str | Path, results: str | Path, task: str, start: float) -> dict[str, Any]:
    seconds = round(time.perf_counter() - start, 3)
    return {"annotations": str(annotations), "results": str(results), "task": task, "seconds": seconds}
