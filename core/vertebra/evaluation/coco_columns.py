"""The evaluator's ground truth and detection table to columns: what `run_pycocotools` does, by `evaluate_columns`."""

from __future__ import annotations

import numpy as np

from vertebra.evaluation.detections import DetectionTable
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.curves import CocoArrays
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.masks import MaskColumn
from vertebra_eval.coco.numbers import arrays_of_result
from vertebra_eval.coco.params import CocoParams
from vertebra_eval.coco.read_truth import read_ground_truth

__all__ = ["columns_of_table", "columns_of_truth", "evaluate_tables"]


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
    objects = columns_of_truth(truth, task)
    found = columns_of_table(table, objects, task)
    return arrays_of_result(evaluate_columns(objects, found, task, params), objects, found)


def columns_of_truth(truth: GroundTruth, task: str, ignored_by: tuple[str, ...] = ("iscrowd",)) -> GroundTruthColumns:
    """Columns whose image and category numbers are the rows and class numbers of `truth`."""
    images = [
        {"id": row, "height": size[0], "width": size[1]} if size and None not in size else {"id": row}
        for row, size in enumerate(truth.sizes)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(truth.class_names)]
    data = {"images": images, "categories": categories, "annotations": truth.annotations}
    return read_ground_truth(data, task, ignored_by=ignored_by, name=truth.source)


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
        columns.masks = MaskColumn(table.masks, truth.image_sizes[table.image])
        columns.masks.check(columns.source, [truth.image_ids[row] for row in table.image.tolist()])
        columns.areas = columns.masks.boxes_and_areas()[1]
    elif task == "keypoints" and table.keypoints is not None:
        columns.keypoints = table.coco_keypoints()
        columns.areas = np.ptp(columns.keypoints[..., 0], axis=1) * np.ptp(columns.keypoints[..., 1], axis=1)
    return columns
