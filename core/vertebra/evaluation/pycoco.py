"""COCO evaluation by pycocotools: our ground truth and detections in, its arrays out, nothing printed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vertebra.errors import DataError
from vertebra.evaluation.detections import DetectionTable
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.area_ranges import AREA_RANGES
from vertebra_eval.coco.curves import CocoArrays
from vertebra_eval.coco.match_columns import MatchColumns
from vertebra_eval.coco.params import CocoParams

__all__ = ["run_pycocotools", "task_records"]


def run_pycocotools(
    truth: GroundTruth,
    table: DetectionTable,
    task: str,
    *,
    iou_thresholds: list[float] | None = None,
    max_dets: list[int] | None = None,
    sigmas: np.ndarray | None = None,
) -> CocoArrays:
    """Evaluate one task over all images and classes of `truth`.

    Args:
        task: bbox, segm or keypoints.
        iou_thresholds: of box IoU, mask IoU or OKS; None: 0.5 to 0.95 in steps of 0.05.
        max_dets: limits on detections per image and class; None: 1, 10, 100 (keypoints: 20).
        sigmas: (K,) OKS standard deviations of each keypoint, as a part of the object's scale.
    """
    if task == "segm":
        _check_mask_sizes(truth, table)
    truths, records = _truth_records(truth, task), list(task_records(table, task))
    areas = list(CocoParams.for_task(task).area_ranges)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        tool = COCOeval(_coco(truth, truths), _coco(truth, records), iouType=task)
        tool.params.imgIds = list(range(len(truth.keys)))
        tool.params.catIds = list(range(len(truth.class_names)))
        tool.params.areaRng = [list(AREA_RANGES[name]) for name in areas]
        tool.params.areaRngLbl = areas
        if iou_thresholds is not None:
            tool.params.iouThrs = np.array(sorted(iou_thresholds))
        if max_dets is not None:
            tool.params.maxDets = sorted(max_dets)
        if sigmas is not None:
            tool.params.kpt_oks_sigmas = np.asarray(sigmas, dtype=np.float64)
        tool.evaluate()
        tool.accumulate()
    num_truth, num_crowd = _count(truths, task, len(truth.class_names), areas)
    columns = _columns(tool, truth, truths, records)
    at = int(np.argmin(np.abs(tool.params.iouThrs - 0.5)))
    return CocoArrays(
        task=task,
        precision=tool.eval["precision"],
        recall=tool.eval["recall"],
        scores=tool.eval["scores"],
        iou_thresholds=np.asarray(tool.params.iouThrs),
        recall_thresholds=np.asarray(tool.params.recThrs),
        areas=areas,
        max_dets=list(tool.params.maxDets),
        num_truth=num_truth,
        num_crowd=num_crowd,
        num_detections=np.bincount([r["category_id"] for r in records], minlength=len(truth.class_names)),
        matches=columns.at(at),
        columns=columns,
    )


def task_records(table: DetectionTable, task: str) -> Iterator[dict]:
    """The detections as COCO's results for a task; image rows and class numbers for ids.

    `area` is what pycocotools' loadRes would give them: of the box, the mask, or the box around the keypoints.
    """
    boxes = table.coco_boxes()
    keypoints = table.coco_keypoints() if task == "keypoints" else None
    columns = zip(table.image.tolist(), table.classes.tolist(), table.scores.tolist(), strict=True)
    for row, (image, number, score) in enumerate(columns):
        record = {"id": row + 1, "image_id": image, "category_id": number, "score": score, "iscrowd": 0}
        if task == "bbox":
            record["bbox"] = boxes[row].tolist()
            record["area"] = record["bbox"][2] * record["bbox"][3]
        elif task == "segm":
            record["segmentation"] = table.masks[row]
            record["area"] = float(coco_mask.area(table.masks[row]))
        else:
            points = keypoints[row]
            width, height = np.ptp(points[:, 0]), np.ptp(points[:, 1])
            record["keypoints"] = points.reshape(-1).tolist()
            record["area"] = float(width * height)
        yield record


def _coco(truth: GroundTruth, annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": row, **({"height": size[0], "width": size[1]} if size else {})}
            for row, size in enumerate(truth.sizes)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(truth.class_names)],
    }
    coco.createIndex()
    return coco


def _truth_records(truth: GroundTruth, task: str) -> list[dict]:
    """Copies of the annotations that the task can judge; pycocotools writes into them."""
    copies = truth.records()
    if task == "bbox":
        return copies
    if task == "segm":
        records = [record for record in copies if record.get("segmentation")]
        for record in records:
            if truth.sizes[record["image_id"]] is None:
                raise DataError(
                    f"{truth.source}: image {truth.image_ids[record['image_id']]!r} has no height and width"
                )
        return records
    length = next((len(a["keypoints"]) for a in copies if a.get("keypoints")), 0)
    nothing = {
        "keypoints": [0] * length,
        "num_keypoints": 0,
    }  # an object without labels takes detections, but counts not
    return [a if a.get("keypoints") else a | nothing for a in copies] if length else []


def _check_mask_sizes(truth: GroundTruth, table: DetectionTable) -> None:
    """pycocotools would take masks of another size for misses and say nothing."""
    for row, mask in enumerate(table.masks or ()):
        wanted = truth.sizes[table.image[row]]
        if wanted is not None and tuple(mask["size"]) != tuple(wanted):
            raise DataError(
                f"image {truth.image_ids[table.image[row]]!r}: a predicted mask has size {tuple(mask['size'])} "
                f"(height, width), the ground truth {tuple(wanted)}"
            )


def _count(truths: list[dict], task: str, num_classes: int, areas: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(K, A) objects that count and (K,) that do not."""
    counts, ignored = np.zeros((num_classes, len(areas)), np.int64), np.zeros(num_classes, np.int64)
    for record in truths:
        if _is_ignored(record, task):
            ignored[record["category_id"]] += 1
            continue
        for column, name in enumerate(areas):
            low, high = AREA_RANGES[name]
            counts[record["category_id"], column] += low <= record["area"] <= high
    return counts, ignored


def _columns(tool: COCOeval, truth: GroundTruth, truths: list[dict], records: list[dict]) -> MatchColumns:
    """The matches, out of the per-image results for objects of all sizes."""
    whole = tool.params.areaRng[0]
    results = [result for result in tool.evalImgs if result is not None and result["aRng"] == whole]
    counts = [len(result["dtIds"]) for result in results]
    filled = [result for result, count in zip(results, counts, strict=True) if count]
    nothing = np.zeros((len(tool.params.iouThrs), 0))
    match_ids = np.concatenate([nothing, *(result["dtMatches"] for result in filled)], axis=1).T.astype(np.int64)
    rows = np.array([number - 1 for result in filled for number in result["dtIds"]], dtype=np.int64)
    truth_ids = np.array([record["id"] for record in truths], dtype=np.int64)
    order = np.argsort(truth_ids, kind="stable")
    found = order[np.searchsorted(truth_ids, match_ids, sorter=order).clip(max=len(order) - 1)] if len(order) else -1
    boxes = None
    if tool.params.iouType == "bbox":
        boxes = np.array([records[row]["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # xywh -> xyxy
    truth_boxes = np.array([record["bbox"] for record in truths], dtype=np.float64).reshape(-1, 4)
    truth_boxes[:, 2:] += truth_boxes[:, :2]
    return MatchColumns(
        num_images=len(truth.keys),
        class_names=truth.class_names,
        iou_thresholds=np.asarray(tool.params.iouThrs),
        detection_row=rows,
        detection_image=np.repeat(np.array([r["image_id"] for r in results], np.int64), counts),
        detection_class=np.repeat(np.array([r["category_id"] for r in results], np.int64), counts),
        detection_score=np.array([score for result in filled for score in result["dtScores"]], dtype=np.float64),
        detection_match=np.where(match_ids > 0, found, -1),
        detection_ignored=np.concatenate([nothing, *(r["dtIgnore"] for r in filled)], axis=1).T.astype(bool),
        truth_image=np.array([record["image_id"] for record in truths], dtype=np.int64),
        truth_class=np.array([record["category_id"] for record in truths], dtype=np.int64),
        truth_ignored=np.array([_is_ignored(record, tool.params.iouType) for record in truths], dtype=bool),
        truth_box=truth_boxes,
        truth_area=np.array([record["area"] for record in truths], dtype=np.float64),
        detection_box=boxes,
    )


def _is_ignored(record: dict, task: str) -> bool:
    return bool(record["iscrowd"] or (task == "keypoints" and not record["num_keypoints"]))
