"""COCO ground truth (a file, a dict, or pycocotools' COCO) to columns."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.cocoeval.columns import GroundTruthColumns
from vertebra.evaluation.cocoeval.masks import MaskColumn
from vertebra.evaluation.cocoeval.records import (
    box_column,
    column,
    keypoint_column,
    load_json,
    number_column,
    numbers_of,
    sorted_ids,
)

__all__ = ["ID_0_NOTE", "read_ground_truth"]

ID_0_NOTE = "one annotation has the id 0, which pycocotools never counts as found; number annotations from 1"


def read_ground_truth(
    source: Any,
    task: str,
    *,
    image_ids: Iterable[Hashable] | None = None,
    category_ids: Iterable[Hashable] | None = None,
    ignored_by: tuple[str, ...] = ("iscrowd",),
) -> GroundTruthColumns:
    """Columns of a COCO data set, treated as pycocotools treats it: a field `ignore` means nothing, `iscrowd` does.

    Beyond pycocotools: a missing `iscrowd` is 0, a missing `area` that of the mask or box, a missing `num_keypoints` is
    counted. For segm, objects without a mask are left out; `notes` says so.

    Args:
        source: path, dict with images, annotations, categories, or an object with such a dict as `.dataset`.
        image_ids, category_ids: only these. None: all that the source lists.
        ignored_by: fields of an annotation that, where they are set, make the object neither to be found nor missed.

    Raises:
        DataError: what cannot be read; sizes, areas or boxes that are not finite or negative.
    """
    name, data = "the ground truth", getattr(source, "dataset", source)
    if isinstance(source, (str, os.PathLike)):
        name, data = str(source), load_json(source)
    if not isinstance(data, dict) or not {"images", "categories"} <= set(data):
        found = (
            f"a dict with {', '.join(map(str, data)) or 'nothing'}" if isinstance(data, dict) else type(data).__name__
        )
        raise DataError(f"{name}: COCO ground truth is a dict with images, annotations and categories, not {found}")
    listed = {image["id"]: image for image in _records(data, "images", name)}
    named = {
        category["id"]: str(category.get("name", category["id"])) for category in _records(data, "categories", name)
    }
    images, categories = _chosen(listed, image_ids, "image", name), _chosen(named, category_ids, "category", name)
    records, notes = _records(data, "annotations", name), []
    image = numbers_of(column(records, "image_id", name), {key: n for n, key in enumerate(images)}, len(records))
    number = {key: n for n, key in enumerate(categories)}
    category = numbers_of(column(records, "category_id", name), number, len(records))
    used = (image >= 0) & (category >= 0)
    if task == "segm":
        masked = np.fromiter((bool(record.get("segmentation")) for record in records), bool, len(records))
        if (used & ~masked).any():
            notes.append(f"{(used & ~masked).sum()} ground truth objects without a mask are left out")
        used &= masked
    rows = np.flatnonzero(used)
    records, image, category = [records[row] for row in rows.tolist()], image[rows], category[rows]
    sizes = np.array([[listed[key].get("height") or 0, listed[key].get("width") or 0] for key in images], np.int64)
    columns = GroundTruthColumns(
        image=image,
        category=category,
        boxes=_boxes(records, task, name),
        areas=_areas(records, sizes.reshape(-1, 2)[image], notes, name),
        crowd=(crowd := np.fromiter((bool(r.get("iscrowd")) for r in records), bool, len(records))),
        ignored=np.fromiter((any(r.get(name) for name in ignored_by) for r in records), bool, len(records)),
        annotation_ids=_annotation_ids(records, notes),
        image_ids=images,
        category_ids=categories,
        category_names=[named[key] for key in categories],
        image_sizes=sizes.reshape(-1, 2),
        other_image_ids=frozenset(listed) - set(images),
        other_category_ids=frozenset(named) - set(categories),
        source=name,
        notes=notes,
    )
    if task == "segm":
        columns.masks = MaskColumn([record["segmentation"] for record in records], columns.image_sizes[image])
        columns.masks.check(name, [columns.image_ids[i] for i in image.tolist()])
    if task == "keypoints":
        columns.keypoints, columns.ignored = _keypoints(records, crowd, name)
    return columns


def _records(data: dict, field: str, source: str) -> list[dict]:
    records = data.get(field, [])
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{source}: {field} has to be a list of objects")
    column(records, "id", source) if field != "annotations" else None
    return records


def _chosen(listed: dict, wanted: Iterable[Hashable] | None, what: str, source: str) -> list:
    if wanted is None:
        return sorted_ids(listed)
    wanted = sorted_ids(wanted)
    unknown = [key for key in wanted if key not in listed]
    if unknown:
        raise DataError(f"{source}: has no {what} {unknown[0]!r} ({len(unknown)} such ids were asked for)")
    return wanted


def _annotation_ids(records: list[dict], notes: list[str]) -> np.ndarray:
    """(G,) ids, 1 where an id is no integer: only 0 has a meaning."""
    ids = np.array([i if isinstance(i := record.get("id"), int) else 1 for record in records], dtype=np.int64)
    if (ids == 0).any():
        notes.append(ID_0_NOTE)
    return ids


def _boxes(records: list[dict], task: str, source: str) -> np.ndarray:
    """(G, 4) xywh; zeros where a task does not need what a record lacks."""
    if task != "bbox":
        records = [record if record.get("bbox") else {"bbox": [0.0] * 4} for record in records]
    boxes = box_column(records, source)
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{source}: annotation {records[row].get('id')!r} has the box {boxes[row].tolist()}, {bad.sum()} such in "
            "all; x, y, width, height have to be finite, and sizes not negative"
        )
    return boxes


def _areas(records: list[dict], sizes: np.ndarray, notes: list[str], source: str) -> np.ndarray:
    """(G,) areas as annotated; where there is none, of the mask, else of the box. sizes: (G, 2) height, width."""
    lacking = [row for row, record in enumerate(records) if record.get("area") is None]
    if lacking:
        notes.append(
            f"{len(lacking)} ground truth objects have no area; that of their mask, else of their box, is used"
        )
        records = list(records)
    for row in lacking:
        segmentation, box = records[row].get("segmentation"), records[row].get("bbox") or [0.0] * 4
        if segmentation and (isinstance(segmentation, dict) or sizes[row].all()):
            area = MaskColumn([segmentation], sizes[row : row + 1]).boxes_and_areas()[1].item()
        else:
            area = box[2] * box[3]
        records[row] = records[row] | {"area": area}
    areas = number_column(records, "area", source)
    if not np.isfinite(areas).all():
        row = int(np.argmax(~np.isfinite(areas)))
        raise DataError(f"{source}: annotation {records[row].get('id')!r} has the area {areas[row]}; expected a number")
    return areas


def _keypoints(records: list[dict], crowd: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """(G, J, 3) keypoints, all unlabelled where there are none, and (G,) which objects are ignored."""
    length = next((len(record["keypoints"]) for record in records if record.get("keypoints")), 0)
    keypoints = keypoint_column(
        [record if record.get("keypoints") else {"keypoints": [0] * length} for record in records], source
    )
    labelled = np.count_nonzero(keypoints[..., 2] > 0, axis=1) if length else np.zeros(len(records), np.int64)
    counts = [record.get("num_keypoints") for record in records]
    given = np.array([own if count is None else count for own, count in zip(labelled.tolist(), counts, strict=True)])
    return keypoints, crowd | (given == 0)
