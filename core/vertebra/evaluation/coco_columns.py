"""The evaluator's ground truth and detection table to columns: what `run_pycocotools` does, by `evaluate_columns`."""

from __future__ import annotations

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.detections import DetectionTable
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.curves import CocoArrays
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.numbers import arrays_of_result
from vertebra_eval.coco.params import CocoParams

__all__ = ["columns_of_table", "evaluate_tables"]


def evaluate_tables(
    truth: GroundTruth,
    table: DetectionTable,
    task: str,
    *,
    iou_thresholds: list[float] | None = None,
    max_dets: list[int] | None = None,
    sigmas: np.ndarray | None = None,
) -> CocoArrays:
    """Evaluate one task over all images and classes of `truth`; arguments and result are `run_pycocotools`'.

    Args:
        task: bbox, segm or keypoints.
        iou_thresholds, max_dets, sigmas: None: COCO's own for the task.

    Raises:
        DataError: masks of another size than their image.
    """
    changes = {"iou_thresholds": iou_thresholds and sorted(iou_thresholds), "max_dets": max_dets, "sigmas": sigmas}
    params = CocoParams.for_task(task, **{name: value for name, value in changes.items() if value is not None})
    objects = truth.columns(task)
    found = columns_of_table(table, objects, task)
    return arrays_of_result(evaluate_columns(objects, found, task, params), objects, found)


def columns_of_table(table: DetectionTable, truth: GroundTruthColumns, task: str) -> DetectionColumns:
    """Columns of one task; areas are those of the boxes, the masks, or the boxes around the keypoints."""
    columns = DetectionColumns(
        image=table.image,
        category=table.classes,
        boxes=table.coco_boxes(),
        areas=np.zeros(len(table)),
        scores=table.scores,
        source="the predictions",
    )
    if task == "bbox":
        columns.areas = columns.boxes[:, 2] * columns.boxes[:, 3]
    elif task == "segm" and table.masks is not None:
        columns.masks = table.masks
        _check_masks(columns, truth)
        columns.areas = columns.masks.boxes_and_areas()[1]
    elif task == "keypoints" and table.keypoints is not None:
        columns.keypoints = table.coco_keypoints()
        columns.areas = np.ptp(columns.keypoints[..., 0], axis=1) * np.ptp(columns.keypoints[..., 1], axis=1)
    return columns


def _check_masks(columns: DetectionColumns, truth: GroundTruthColumns) -> None:
    """Every predicted mask has the size of its image, and run lengths that fill it, or a DataError."""
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
