"""`coco_evaluate`: ground truth and detections in any form in, COCO's numbers with their names and reasons out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Literal

import numpy as np

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.metrics import coco_metrics
from vertebra_eval.coco.objects import object_notes
from vertebra_eval.coco.operating_point import operating_point
from vertebra_eval.coco.params import CocoParams, sigmas_for
from vertebra_eval.coco.read_detections import read_detections
from vertebra_eval.coco.read_truth import read_ground_truth
from vertebra_eval.coco.reasons import boxes_look_like_xyxy, equal_scores, infinite_scores
from vertebra_eval.coco.result import CocoResult
from vertebra_eval.errors import DataError

__all__ = ["CocoNumbers", "coco_evaluate", "odd_detections", "odd_objects"]


class CocoNumbers(dict):
    """Metrics `<task>/<name>` and `<task>/<name>-<class>`: fractions, None where undefined; it goes into JSON as it is.

    Args:
        reasons: one sentence for each metric that is None. notes: what was dropped or assumed.
        result: the full arrays, COCO's `stats` and the matches.
        truth, detections: the columns that were evaluated.
    """

    def __init__(
        self,
        metrics: dict[str, float | None],
        reasons: dict[str, str],
        notes: list[str],
        result: CocoResult,
        truth: GroundTruthColumns,
        detections: DetectionColumns,
    ) -> None:
        super().__init__(metrics)
        self.reasons = reasons
        self.notes = notes
        self.result = result
        self.truth = truth
        self.detections = detections


def coco_evaluate(
    gt: Any,
    dt: Any,
    task: str = "bbox",
    *,
    image_ids: Iterable[Hashable] | None = None,
    category_ids: Iterable[Hashable] | None = None,
    confidence: float | Literal["best"] | None = None,
    area_of_box: float | None = None,
    **params: Any,
) -> CocoNumbers:
    """COCO's average precision and recall, equal to pycocotools' to the last bit and far faster.

        numbers = coco_evaluate("instances_val.json", "results.json", "bbox")
        numbers["bbox/AP"], numbers.reasons, numbers.result.precision

    Args:
        gt: path of COCO ground truth, the dict in it, pycocotools' COCO, or `GroundTruthColumns`.
        dt: path of COCO results, the list in it, pycocotools' COCO, or `DetectionColumns`.
        task: bbox, segm, keypoints, or boundary: masks by the smaller of mask IoU and boundary IoU.
        image_ids, category_ids: only these. None: all of the ground truth; columns are taken whole.
        confidence: also F1, precision, recall and mIoU of the matched pairs, for detections from this score on; best:
            the score where F1 is best.
        area_of_box: the objects' areas, which scale the OKS and choose the area range, are this part of their boxes'.
            None: as annotated.
        params: fields of `CocoParams` that differ from COCO's: `iou_thresholds`, `recall_thresholds`, `max_dets`,
            `use_categories` (False: pooled), `sigmas`, and `area_ranges`, whose names name metrics (`AP_<range>`).

    Raises:
        DataError: what cannot be read or evaluated; names file and record.
    """
    chosen, notes = _params(task, params), []
    if isinstance(gt, GroundTruthColumns):
        if image_ids is not None or category_ids is not None or area_of_box is not None:
            raise DataError("image_ids, category_ids and area_of_box are for files and dicts; columns are taken whole")
        truth = gt
    else:
        truth = read_ground_truth(gt, task, image_ids=image_ids, category_ids=category_ids, area_of_box=area_of_box)
    detections = dt if isinstance(dt, DetectionColumns) else read_detections(dt, truth, task)
    notes += [*truth.notes, *odd_objects(truth, chosen.max_dets[-1])]
    notes += [*detections.notes, *odd_detections(truth, detections, task)]
    if truth.keypoints is not None and detections.keypoints is not None:
        count, own = truth.keypoints.shape[1], detections.keypoints.shape[1]
        if count and len(detections) and count != own:
            raise DataError(f"{detections.source}: {own} keypoints in a record, but {count} in {truth.source}")
    if task == "keypoints" and "sigmas" not in params and truth.keypoints is not None:
        count = truth.keypoints.shape[1]
        if count:
            sigmas, guessed = sigmas_for(count)
            chosen = _params(task, params | {"sigmas": sigmas})
            notes += [guessed] if guessed else []
    if not len(detections):
        notes.append(f"{detections.source}: there are no detections, so every AP and AR that has ground truth is 0")
    result = evaluate_columns(truth, detections, task, chosen)
    class_names = list(truth.category_names) if chosen.use_categories else []
    metrics, reasons = coco_metrics(result, class_names)
    if confidence is not None:
        point = operating_point(result, None if confidence == "best" else float(confidence))
        if isinstance(point, str):
            keys = [f"{task}/{name}" for name in ("F1", "precision", "recall", "mIoU", "confidence")]
            more, why = dict.fromkeys(keys), dict.fromkeys(keys, point)
        else:
            more, why = point.metrics(task)
        metrics, reasons = metrics | more, reasons | why
    return CocoNumbers(metrics, reasons, notes, result, truth, detections)


def odd_objects(truth: GroundTruthColumns, max_dets: int) -> list[str]:
    """Sentences on what is legal in ground truth and rarely meant."""
    notes = object_notes(
        truth.image,
        truth.category,
        truth.areas,
        truth.crowd,
        truth.boxes[:, 2] * truth.boxes[:, 3],
        lambda row: f"annotation {truth.annotation_ids[row]}",
        max_dets,
        truth.ignored,
    )
    return [f"{truth.source}: {note}" for note in notes]


def odd_detections(truth: GroundTruthColumns, detections: DetectionColumns, task: str) -> list[str]:
    """Sentences on what looks wrong with detections that can be evaluated all the same."""
    odd = [equal_scores(detections.scores), infinite_scores(detections.scores)]
    if task == "bbox" and truth.image_sizes is not None:
        sizes = np.where(truth.image_sizes > 0, truth.image_sizes, np.nan)[:, ::-1]  # width, height
        odd.append(boxes_look_like_xyxy(detections.boxes, sizes[detections.image]))
    return [f"{detections.source}: {sentence}" for sentence in odd if sentence]


def _params(task: str, changes: dict[str, Any]) -> CocoParams:
    own = CocoParams.for_task(task)
    unknown = sorted(set(changes) - set(vars(own)))
    if unknown:
        raise DataError(f"coco_evaluate has no parameter {unknown[0]!r}; it has {', '.join(vars(own))}")
    for name, limits in changes.get("area_ranges", {}).items():
        if name.isdecimal() or len(limits) != 2 or not limits[0] <= limits[1]:
            what = "expected a name that is not a number, with (lowest, highest) square pixels"
            raise DataError(f"the area range {name!r} is {limits}; {what}, such as 'tiny': (0, 256)")
    return CocoParams.for_task(task, **changes)
