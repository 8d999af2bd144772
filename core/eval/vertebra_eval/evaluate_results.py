"""Evaluate result files of any tool against ground truth files, without a model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra_eval.analysis.intervals import bootstrap_intervals
from vertebra_eval.coco import (
    CocoNumbers,
    CocoResult,
    GroundTruthColumns,
    coco_evaluate,
    read_ground_truth,
)
from vertebra_eval.coco.reasons import classes_without_detections
from vertebra_eval.errors import DataError
from vertebra_eval.files import write_json
from vertebra_eval.panoptic.files import panoptic_evaluate
from vertebra_eval.result_files import read_results

__all__ = ["ResultNumbers", "evaluate_result_files", "match_results"]


@dataclass
class ResultNumbers:
    """What result files are worth; the fields are those of metrics.json.

    Args:
        metrics: flat keys `<task>/<name>`, fractions, None where undefined.
        intervals: (low, high) of some of them, 95 % over images.
        reasons: one sentence for each None. notes: what one should know before trusting the numbers.
        info: files, counts, seconds. result: of COCO's tasks, the arrays and matches.
    """

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    result: CocoResult | None = None

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
    resamples: int = 1000,
    seed: int = 0,
    **changes: Any,
) -> ResultNumbers:
    """Metrics of a result file, with intervals where the task has AP.

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
        numbers = ResultNumbers(dict(quality.metrics), {}, dict(quality.reasons), list(quality.notes))
        numbers.info = _info(annotations, results, task, start)
        return numbers
    if annotations_folder is not None or results_folder is not None:
        raise DataError(f"folders of PNG files belong to the task panoptic, not to {task}")
    truth = read_ground_truth(annotations, task)
    found = match_results(results, truth, task, **changes)
    result = found.result
    lacking = classes_without_detections(result.num_truth[:, 0], result.num_detections, truth.category_names)
    notes = [*found.notes, *([lacking] if lacking else [])]
    intervals = bootstrap_intervals(result.matches, resamples=resamples, seed=seed) if resamples else {}
    info = _info(annotations, results, task, start)
    info |= {"images": truth.num_images, "objects": int((~truth.ignored).sum()), "resamples": resamples}
    info |= {"detections": int(result.num_detections.sum())}
    intervals = {f"{task}/{name}": ends for name, ends in intervals.items()}
    return ResultNumbers(dict(found), intervals, found.reasons, notes, info, result)


def match_results(results: str | Path, truth: GroundTruthColumns, task: str, **changes: Any) -> CocoNumbers:
    """Read a result file and evaluate it; `changes` as for `coco_evaluate`."""
    return coco_evaluate(truth, read_results(results, truth, task), task, **changes)


def _info(annotations: str | Path, results: str | Path, task: str, start: float) -> dict[str, Any]:
    seconds = round(time.perf_counter() - start, 3)
    return {"annotations": str(annotations), "results": str(results), "task": task, "seconds": seconds}
