"""COCO evaluation of a model's detections, by `evaluate_columns` or by pycocotools itself."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vertebra.errors import DataError
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco import CocoParams, CocoResult, DetectionColumns, GroundTruthColumns, evaluate_columns

__all__ = ["check_masks", "evaluate_by_pycocotools", "evaluate_model"]


def evaluate_model(truth: GroundTruth, found: DetectionColumns, task: str, **changes: Any) -> CocoResult:
    """Evaluate one task over all images and classes of `truth`.

    Args:
        task: bbox, segm, boundary or keypoints.
        changes: fields of `CocoParams` that differ from COCO's for the task.

    Raises:
        DataError: masks of another size than their image.
    """
    objects = truth.columns(task)
    if task in ("segm", "boundary") and found.masks is not None:
        check_masks(found, objects)
    return evaluate_columns(objects, found, task, CocoParams.for_task(task, **changes))


def evaluate_by_pycocotools(truth: GroundTruth, found: DetectionColumns, task: str, **changes: Any) -> CocoResult:
    """Like `evaluate_model`, with precision, recall and scores that pycocotools computed; the matches are ours, which
    are the same."""
    result = evaluate_model(truth, found, task, **changes)
    objects, params = result.matches.objects, result.params
    truths = [record for record in truth.records() if task != "segm" or record.get("segmentation")]
    if (
        task == "keypoints" and objects.keypoints is not None
    ):  # an object without labels takes detections, but does not count
        nothing = {"keypoints": [0] * 3 * objects.keypoints.shape[1], "num_keypoints": 0}
        truths = [nothing | record for record in truths]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        tool = COCOeval(_coco(objects, truths), _coco(objects, _records(found, task)), iouType=task)
        tool.params.imgIds, tool.params.catIds = list(range(objects.num_images)), list(range(objects.num_categories))
        tool.params.areaRng, tool.params.areaRngLbl = params.areas.tolist(), list(params.area_ranges)
        tool.params.iouThrs, tool.params.maxDets = params.iou_thresholds, list(params.max_dets)
        tool.params.kpt_oks_sigmas = params.sigmas
        tool.evaluate()
        tool.accumulate()
    return replace(result, **{name: tool.eval[name] for name in ("precision", "recall", "scores")})


def check_masks(columns: DetectionColumns, truth: GroundTruthColumns) -> None:
    """Every predicted mask has the size of its image, and run lengths that fill it, or a DataError."""
    assert columns.masks is not None and truth.image_sizes is not None
    own, wanted = columns.masks.sizes, truth.image_sizes[columns.image]
    wrong = np.flatnonzero((wanted > 0).all(axis=1) & (own != wanted).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        size, image = own[row].tolist(), wanted[row].tolist()
        what = f"has size {size} (height, width), the image {image}"
    elif len(wrong := columns.masks.unsound()):
        row, what = int(wrong[0]), "is broken: its run lengths do not fill its size"
    else:
        return
    key = truth.image_ids[columns.image[row]]
    raise DataError(f"{columns.source}: image {key!r}: the mask of detection {row} {what}")


def _coco(objects: GroundTruthColumns, annotations: list[dict]) -> COCO:
    coco, sizes = COCO(), np.asarray(objects.image_sizes).tolist()
    coco.dataset = {
        "images": [{"id": row, "height": h, "width": w} for row, (h, w) in enumerate(sizes)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(objects.category_names)],
    }
    coco.createIndex()
    return coco


def _records(found: DetectionColumns, task: str) -> list[dict]:
    """The detections as pycocotools' annotations, with image rows and class numbers for ids."""
    areas, records = np.asarray(found.with_areas(task).areas).tolist(), []
    columns = zip(found.image.tolist(), found.category.tolist(), found.scores.tolist(), areas, strict=True)
    for row, (image, number, score, area) in enumerate(columns):
        record = {"id": row + 1, "image_id": image, "category_id": number, "score": score, "area": area, "iscrowd": 0}
        if task == "bbox":
            record["bbox"] = found.boxes[row].tolist()
        elif task == "segm" and found.masks is not None:
            record["segmentation"] = found.masks[row]
        elif found.keypoints is not None:
            record["keypoints"] = found.keypoints[row].reshape(-1).tolist()
        records.append(record)
    return records
