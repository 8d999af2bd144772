"""COCO results (a file or a list of dicts) to columns."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns, can_be_ranked
from vertebra_eval.coco.masks import MaskColumn
from vertebra_eval.coco.records import (
    box_column,
    id_column,
    keypoint_column,
    load_json,
    number_column,
)
from vertebra_eval.errors import DataError

__all__ = ["read_detections"]


def read_detections(source: Any, truth: GroundTruthColumns, task: str) -> DetectionColumns:
    """Columns of detections, with areas as pycocotools' loadRes has them.

    The first record decides: with a `bbox` (of any task) areas are those of the boxes, else with a `segmentation` those
    of the masks, else those of the boxes around the `keypoints`. A box that is not there is made of the mask or the
    keypoints, a mask of the box.
    Dropped, with their number in `notes`: detections of categories the ground truth does not have, with a NaN score, a
    box or keypoint that is not finite, or a box of negative size. Infinite scores stay.

    Args:
        source: path, list of result dicts, or a dict or object that holds such a list as annotations.

    Raises:
        DataError: what cannot be read; images that the ground truth does not have; masks of another size than their
            image.
    """
    name, records = "the results", getattr(source, "dataset", source)
    if isinstance(source, (str, os.PathLike)):
        name, records = str(source), load_json(source)
    if isinstance(records, dict) and "annotations" in records:
        records = records["annotations"]
    if not isinstance(records, list) or not all(map(dict.__instancecheck__, records)):
        raise DataError(f"{name}: COCO results are a list of objects with image_id, category_id, score and the rest")
    first = records[0] if records else {"bbox": [0.0] * 4}
    image, category, kept, notes = _numbers(records, truth, name)
    rows = np.flatnonzero(kept)
    if not kept.all():
        records = [records[row] for row in rows.tolist()]
        image, category = image[kept], category[kept]
    keypoints, masks = None, None
    if task == "segm" or ("segmentation" in first and not _has_box(first)):
        masks = _masks(records, _has_box(first), truth, image, name, rows)
    if _has_box(first):
        boxes = box_column(records, name, rows)
        with np.errstate(over="ignore", invalid="ignore"):  # those are dropped below
            areas = boxes[:, 2] * boxes[:, 3]
    elif masks is not None:
        boxes, areas = masks.boxes_and_areas()
    elif "keypoints" in first:
        keypoints = keypoint_column(records, name, rows)
        low, high = keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = np.concatenate([low, high - low], axis=1)
            areas = boxes[:, 2] * boxes[:, 3]
    else:
        raise DataError(f"{name}: record 0 has neither bbox nor segmentation nor keypoints: {str(first)[:200]}")
    if hasattr(source, "dataset"):  # pycocotools' loadRes has been there, and has added boxes to masks
        areas = number_column(records, "area", name, rows)
    if task == "keypoints" and keypoints is None:
        keypoints = keypoint_column(records, name, rows) if records else None
    columns = DetectionColumns(
        image=image,
        category=category,
        boxes=boxes,
        areas=areas,
        scores=number_column(records, "score", name, rows),
        masks=masks if task == "segm" else None,
        keypoints=keypoints if task == "keypoints" else None,
        source=name,
        notes=notes,
    )
    return _without_bad(columns, rows, name)


def _has_box(record: dict) -> bool:
    box = record.get("bbox")
    return box is not None and not (hasattr(box, "__len__") and len(box) == 0)


def _numbers(
    records: list[dict], truth: GroundTruthColumns, source: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Numbers of image and category, which records take part, and notes on those that do not."""
    notes: list[str] = []
    ids, image = id_column(records, "image_id", {key: n for n, key in enumerate(truth.image_ids)}, source)
    unknown = [row for row in np.flatnonzero(image < 0).tolist() if ids[row] not in truth.other_image_ids]
    if unknown:
        raise DataError(
            f"{source}: {len(unknown)} of {len(records)} results are of images that {truth.source} does not have, "
            f"first record {unknown[0]} with image_id {ids[unknown[0]]!r}; its ids look like "
            f"{', '.join(map(repr, truth.image_ids[:3])) or 'nothing, it has no images'}"
        )
    ids, category = id_column(records, "category_id", {key: n for n, key in enumerate(truth.category_ids)}, source)
    unknown = [row for row in np.flatnonzero(category < 0).tolist() if ids[row] not in truth.other_category_ids]
    if unknown:
        notes.append(
            f"{source}: {len(unknown)} of {len(records)} detections are of categories that the ground truth does not "
            f"have, and are dropped: first record {unknown[0]} with category_id {ids[unknown[0]]!r}; its ids look "
            f"like {', '.join(map(repr, truth.category_ids[:3])) or 'nothing, it has none'}"
        )
    return image, category, (image >= 0) & (category >= 0), notes


def _masks(
    records: list[dict], by_box: bool, truth: GroundTruthColumns, image: np.ndarray, source: str, rows: np.ndarray
) -> MaskColumn:
    """The masks of all records; where `by_box`, a box stands for a mask that is not there."""
    segmentations = [record.get("segmentation") for record in records]
    arrays = [row for row, one in enumerate(segmentations) if not isinstance(one, (list, tuple, dict, type(None)))]
    if arrays:
        kind = type(segmentations[arrays[0]]).__name__
        raise DataError(
            f"{source}: record {rows[arrays[0]]} has a {kind} as segmentation; expected run lengths (RLE: an object "
            "with size and counts, as pycocotools.mask.encode makes of an array) or polygons"
        )
    lacking = [row for row, segmentation in enumerate(segmentations) if not segmentation]
    if lacking and not by_box:
        raise DataError(f"{source}: record {rows[lacking[0]]} has no segmentation, {len(lacking)} such in all")
    boxes = box_column([records[row] for row in lacking], source, rows[lacking])
    for row, (x, y, w, h) in zip(lacking, boxes.tolist(), strict=True):
        segmentations[row] = [[x, y, x, y + h, x + w, y + h, x + w, y]]
    masks = MaskColumn(segmentations, None if truth.image_sizes is None else truth.image_sizes[image])
    masks.check(source, [truth.image_ids[i] for i in image.tolist()], rows)
    return masks


def _without_bad(columns: DetectionColumns, record_rows: np.ndarray, source: str) -> DetectionColumns:
    """Without detections that cannot be ranked or compared."""
    points = [] if columns.keypoints is None else [columns.keypoints[..., :2]]
    ranked = can_be_ranked(columns.scores, columns.areas, columns.boxes, *points)
    negative = ranked & (columns.boxes[:, 2:] < 0).any(axis=1)
    for bad, fault in (
        (~ranked, "a NaN score or a place that is not finite"),
        (negative, "a box of negative width or height"),
    ):
        if bad.any():
            first = int(record_rows[np.argmax(bad)])
            columns.notes.append(
                f"{source}: {bad.sum()} of {len(bad)} detections have {fault} and are dropped, first record {first}"
            )
    good = ranked & ~negative
    if good.all():
        return columns
    return columns.take(np.flatnonzero(good))
