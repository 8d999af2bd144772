"""COCO ground truth (a file, a dict, or pycocotools' COCO) to columns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import GroundTruthColumns
from vertebra_eval.coco.masks import MaskColumn
from vertebra_eval.coco.records import (
    box_column,
    id_column,
    keypoint_column,
    load_json,
    number_column,
    sorted_ids,
)
from vertebra_eval.coco_objects import id_cause, mask_of
from vertebra_eval.errors import DataError

__all__ = ["ID_0_NOTE", "read_ground_truth"]

ID_0_NOTE = "one annotation has the id 0, which pycocotools never counts as found; number annotations from 1"


def read_ground_truth(
    source: Any,
    task: str,
    *,
    image_ids: Iterable[Hashable] | None = None,
    category_ids: Iterable[Hashable] | None = None,
    ignored_by: tuple[str, ...] = ("iscrowd",),
    name: str = "the ground truth",
) -> GroundTruthColumns:
    """Columns of a COCO data set, treated as pycocotools treats it: a field `ignore` means nothing, `iscrowd` does.

    Beyond pycocotools: a missing `iscrowd` is 0, a missing `area` that of the mask or box, a missing `num_keypoints` is
    counted. For segm, objects without a mask are ignored; `notes` says so.

    Args:
        source: path, dict with images, annotations, categories, or an object with such a dict as `.dataset`.
        image_ids, category_ids: only these. None: all that the source lists.
        name: what messages call a source that is not a path.
        ignored_by: fields of an annotation that, where they are set, make the object neither to be found nor missed.

    Raises:
        DataError: what cannot be read; sizes, areas or boxes that are not finite or negative.
    """
    data = getattr(source, "dataset", source)
    if isinstance(source, (str, os.PathLike)):
        name, data = str(source), load_json(source)
    if not isinstance(data, dict) or not {"images", "categories"} <= set(data):
        found = (
            f"a dict with {', '.join(map(str, data)) or 'nothing'}" if isinstance(data, dict) else type(data).__name__
        )
        raise DataError(f"{name}: COCO ground truth is a dict with images, annotations and categories, not {found}")
    listed = _by_id(data, "images", name)
    named = {key: str(category.get("name", key)) for key, category in _by_id(data, "categories", name).items()}
    images, categories = _chosen(listed, image_ids, "image", name), _chosen(named, category_ids, "category", name)
    records, notes = _records(data, "annotations", name), []
    _, image = id_column(records, "image_id", {key: n for n, key in enumerate(images)}, name)
    _, category = id_column(records, "category_id", {key: n for n, key in enumerate(categories)}, name)
    used = (image >= 0) & (category >= 0)
    strangers = [
        row
        for row in np.flatnonzero(~used).tolist()
        if records[row]["image_id"] not in listed or records[row]["category_id"] not in named
    ]
    if strangers:
        first = records[strangers[0]]
        cause = id_cause(first["image_id"], listed) or id_cause(first["category_id"], named)
        what = f"{len(strangers)} annotations are of images or categories that {name} does not list"
        if len(strangers) == len(records):
            ids = f"image_id {first['image_id']!r}, category_id {first['category_id']!r}"
            raise DataError(f"{name}: all {what}: first record {strangers[0]} with {ids}{cause}")
        notes.append(f"{what}, and are dropped: first record {strangers[0]}{cause}")
    if task == "segm":
        masked = np.fromiter((mask_of(r.get("segmentation")) is not None for r in records), bool, len(records))
        if (used & ~masked).any():
            notes.append(f"{(used & ~masked).sum()} ground-truth objects without a mask are ignored")
        used &= masked
    rows = np.flatnonzero(used)
    records, image, category = [records[row] for row in rows.tolist()], image[rows], category[rows]
    ids, sizes = [images[i] for i in image.tolist()], _sizes(images, listed, name)
    masks = MaskColumn([mask_of(record.get("segmentation")) for record in records], sizes[image])
    columns = GroundTruthColumns(
        image=image,
        category=category,
        boxes=_boxes(records, task, name, rows),
        areas=_areas(records, masks, ids, notes, name, rows),
        crowd=(crowd := np.fromiter((bool(r.get("iscrowd")) for r in records), bool, len(records))),
        ignored=np.fromiter((any(r.get(name) for name in ignored_by) for r in records), bool, len(records)),
        annotation_ids=_annotation_ids(records, notes),
        image_ids=images,
        category_ids=categories,
        category_names=_distinct(categories, named),
        image_sizes=sizes,
        other_image_ids=frozenset(listed) - set(images),
        other_category_ids=frozenset(named) - set(categories),
        source=name,
        notes=notes,
    )
    if task == "segm":
        masks.check(name, ids, rows)
        columns.masks = masks
    if task == "keypoints":
        columns.keypoints, columns.ignored = _keypoints(records, crowd, name, rows)
    return columns


def _records(data: dict, field: str, source: str) -> list[dict]:
    records = data.get(field, [])
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{source}: {field} has to be a list of objects")
    return records


def _by_id(data: dict, field: str, source: str) -> dict[Hashable, dict]:
    records = _records(data, field, source)
    ids, _ = id_column(records, "id", {}, f"{source}, {field}")
    return dict(zip(ids, records, strict=True))


def _distinct(categories: list[Hashable], named: dict[Hashable, str]) -> list[str]:
    """Names as metrics need them: one that several categories share has the id behind it."""
    times = Counter(named[key] for key in categories)
    return [named[key] if times[named[key]] == 1 else f"{named[key]} ({key})" for key in categories]


def _sizes(images: list[Hashable], listed: dict[Hashable, dict], source: str) -> np.ndarray:
    """(I, 2) int64 height, width; 0 where unknown."""
    sizes = np.zeros((len(images), 2), np.int64)
    for row, key in enumerate(images):
        height, width = listed[key].get("height") or 0, listed[key].get("width") or 0
        try:
            sizes[row] = height, width
            whole = (sizes[row] >= 0).all()
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise DataError(
                f"{source}: image {key!r} has height {height!r} and width {width!r}; expected whole numbers of pixels"
            )
    return sizes


def _chosen(listed: dict, wanted: Iterable[Hashable] | None, what: str, source: str) -> list:
    if wanted is None:
        return sorted_ids(listed)
    wanted = sorted_ids(wanted)
    unknown = [key for key in wanted if key not in listed]
    if unknown:
        raise DataError(f"{source}: has no {what} {unknown[0]!r} ({len(unknown)} such ids were requested)")
    return wanted


def _annotation_ids(records: list[dict], notes: list[str]) -> np.ndarray:
    """(G,) ids, 1 where an id is not an integer: only 0 has a meaning."""
    ids = [i if isinstance(i := record.get("id"), int) and abs(i) < 2**63 else 1 for record in records]
    ids = np.array(ids, dtype=np.int64)
    if (ids == 0).any():
        notes.append(ID_0_NOTE)
    given = [i for record in records if isinstance(i := record.get("id"), (int, str))]
    if len(set(given)) < len(given):
        notes.append(
            f"{len(given) - len(set(given))} annotations have the id of another; each counts here, where pycocotools "
            "takes one of them twice"
        )
    return ids


def _boxes(records: list[dict], task: str, source: str, rows: np.ndarray) -> np.ndarray:
    """(G, 4) xywh; zeros where a record has none and the task needs none."""
    if task != "bbox":
        records = [record if record.get("bbox") else {"bbox": [0.0] * 4} for record in records]
    boxes = box_column(records, source, rows)
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{source}: annotation {records[row].get('id')!r} has the box {boxes[row].tolist()}, {bad.sum()} such in "
            "all; x, y, width, height have to be finite, and sizes not negative"
        )
    return boxes


def _areas(
    records: list[dict], masks: MaskColumn, image_ids: list[Hashable], notes: list[str], source: str, rows: np.ndarray
) -> np.ndarray:
    """(G,) areas as annotated; where there is none, of the mask, else of the box."""
    lacking = [row for row, record in enumerate(records) if record.get("area") is None]
    if lacking:
        notes.append(
            f"{len(lacking)} ground-truth objects have no area; that of their mask, else of their box, is used"
        )
        records = list(records)
    for row in lacking:
        segmentation, box = mask_of(records[row].get("segmentation")), records[row].get("bbox") or [0.0] * 4
        if segmentation and (isinstance(segmentation, dict) or masks.sizes[row].all()):
            mask = masks.take(np.array([row]))
            mask.check(source, image_ids[row : row + 1], rows[row : row + 1])
            area = mask.boxes_and_areas()[1].item()
        else:
            area = box[2] * box[3]
        records[row] = records[row] | {"area": area}
    areas = number_column(records, "area", source, rows)
    if not np.isfinite(areas).all():
        row = int(np.argmax(~np.isfinite(areas)))
        raise DataError(f"{source}: annotation {records[row].get('id')!r} has the area {areas[row]}; expected a number")
    return areas


def _keypoints(records: list[dict], crowd: np.ndarray, source: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G, J, 3) keypoints, all unlabeled where there are none, and (G,) which objects are ignored."""
    lists = (points for record in records if isinstance(points := record.get("keypoints"), (list, tuple, np.ndarray)))
    length = next((len(points) for points in lists if len(points)), 0)
    keypoints = keypoint_column(
        [record if record.get("keypoints") else {"keypoints": [0] * length} for record in records], source, rows
    )
    labeled = np.count_nonzero(keypoints[..., 2] > 0, axis=1) if length else np.zeros(len(records), np.int64)
    own = [record.get("num_keypoints") for record in records]
    counts = [{"num_keypoints": n if k is None else k} for k, n in zip(own, labeled.tolist(), strict=True)]
    given = number_column(counts, "num_keypoints", source, rows)
    return keypoints, crowd | (given == 0)
