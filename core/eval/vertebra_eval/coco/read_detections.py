"""COCO results (a file or a list of dicts) to columns."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from contextlib import closing
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns, can_be_ranked
from vertebra_eval.coco.fields import id_cause, is_hashable
from vertebra_eval.coco.result_records import Records, has_box
from vertebra_eval.errors import DataError
from vertebra_eval.files import json_list_parts, read_json

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
        if (columns := _in_parts(source, truth, task)) is not None:
            return columns
        name, records = str(source), read_json(source, unique_keys=False)
    if isinstance(records, dict) and "annotations" in records:
        records = records["annotations"]
    if not isinstance(records, list) or not all(issubclass(kind, dict) for kind in set(map(type, records))):
        raise DataError(f"{name}: COCO results are a list of objects with image_id, category_id, score and the rest")
    first = records[0] if records else {"bbox": [0.0] * 4}
    image, category, kept, notes = _numbers(records, truth, name)
    reader = Records(records, np.flatnonzero(kept), name)
    image, category = image[kept], category[kept]
    keypoints, masks = None, None
    if task in ("segm", "boundary") or ("segmentation" in first and not has_box(first)):
        masks = reader.masks(has_box(first), truth, image)
    if has_box(first):
        boxes = reader.boxes()
        with np.errstate(over="ignore", invalid="ignore"):  # those are dropped below
            areas = boxes[:, 2] * boxes[:, 3]
    elif masks is not None:
        boxes = np.zeros((0, 4)) if task in ("segm", "boundary") else masks.boxes()
        areas = masks.areas()
    elif "keypoints" in first:
        keypoints = reader.keypoints()
        places = keypoints[..., :2] if len(keypoints) else np.zeros((0, 1, 2))
        low, high = places.min(axis=1), places.max(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = np.concatenate([low, high - low], axis=1)
            areas = boxes[:, 2] * boxes[:, 3]
    else:
        raise DataError(f"{name}: record 0 has neither bbox nor segmentation nor keypoints: {str(first)[:200]}")
    if hasattr(source, "dataset"):  # pycocotools' loadRes has been there, and has added boxes to masks
        areas = reader.numbers("area")
    if task == "keypoints" and keypoints is None:
        keypoints = reader.keypoints() if records else None
    columns = DetectionColumns(
        image=image,
        category=category,
        boxes=boxes,
        areas=areas,
        scores=reader.numbers("score"),
        masks=masks if task in ("segm", "boundary") else None,
        keypoints=keypoints if task == "keypoints" else None,
        source=name,
        notes=[*notes, *reader.notes],
    )
    return _without_bad(columns, reader.rows, name)


def _in_parts(path: str | os.PathLike, truth: GroundTruthColumns, task: str) -> DetectionColumns | None:
    """The columns of a large file, of which only a part is in memory as dicts at a time; None where anything is odd
    about it: notes and errors count all records, so the whole file is read."""
    parts: list[DetectionColumns] = []
    kinds = set()
    try:
        with closing(json_list_parts(path)) as lists:
            for records in lists:
                parts.append(read_detections(records, truth, task))
                kinds.add((has_box(records[0]), "segmentation" in records[0]))  # a first record decides for all
                if parts[-1].notes or len(kinds) > 1:
                    return None
        return DetectionColumns.joined(parts, str(path)) if parts else None
    except (DataError, ValueError, RecursionError, OSError):  # also parts that do not fit, as of other keypoints
        return None


def _numbers(
    records: list[dict], truth: GroundTruthColumns, source: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Numbers of image and category, which records take part, and notes on those that do not."""
    notes: list[str] = []
    ids, image = _ids(records, "image_id", truth.image_ids, source)
    unknown = [row for row in np.flatnonzero(image < 0).tolist() if ids[row] not in truth.other_image_ids]
    if unknown:
        raise DataError(
            f"{source}: {len(unknown)} of {len(records)} results are of images that {truth.source} does not have, "
            f"first record {unknown[0]} with image_id {ids[unknown[0]]!r}; its ids look like "
            f"{', '.join(map(repr, truth.image_ids[:3])) or 'nothing, it has no images'}"
        )
    ids, category = _ids(records, "category_id", truth.category_ids, source)
    unknown = [row for row in np.flatnonzero(category < 0).tolist() if ids[row] not in truth.other_category_ids]
    if unknown:
        notes.append(
            f"{source}: {len(unknown)} of {len(records)} detections are of categories that the ground truth does not "
            f"have, and are dropped: first record {unknown[0]} with category_id {ids[unknown[0]]!r}; its ids look "
            f"like {', '.join(map(repr, truth.category_ids[:3])) or 'nothing, it has none'}"
        )
    return image, category, (image >= 0) & (category >= 0), notes


def _ids(records: list[dict], name: str, known: Sequence[Hashable], source: str) -> tuple[list, np.ndarray]:
    """The ids in one field of all records, and (n,) int64 the number of each, -1 where it has none."""
    number = {key: place for place, key in enumerate(known)}
    try:
        ids = list(map(itemgetter(name), records))
        return ids, np.fromiter(map(number.get, ids, repeat(-1)), np.int64, len(ids))
    except (KeyError, TypeError) as err:
        for row, record in enumerate(records):
            if name not in record:
                raise DataError(f"{source}: record {row} has no {name}: {str(record)[:200]}") from err
            if not is_hashable(record[name]):
                text = f"{name} is {record[name]!r:.60}, expected a whole number or a text"
                raise DataError(f"{source}: record {row}: {text}{id_cause(record[name], number)}") from err
        raise


def _without_bad(columns: DetectionColumns, record_rows: np.ndarray, source: str) -> DetectionColumns:
    """Without detections that cannot be ranked or compared."""
    points = [] if columns.keypoints is None else [columns.keypoints[..., :2]]
    boxes = [columns.boxes] if columns.has_boxes() else []  # those around masks are as they should be
    ranked = can_be_ranked(columns.scores, np.asarray(columns.areas), *boxes, *points)
    negative = ranked & (columns.boxes[:, 2:] < 0).any(axis=1) if boxes else np.zeros_like(ranked)
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
