"""COCO ground truth to the columns of one task: `truth_columns`, and `read_ground_truth` out of a file or dict."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import GroundTruthColumns
from vertebra_eval.coco.data import CocoData, distinct_names, read_coco
from vertebra_eval.errors import DataError

__all__ = ["ID_0_NOTE", "read_ground_truth", "sorted_ids", "truth_columns"]

ID_0_NOTE = "one annotation has the id 0, which pycocotools never counts as found; number annotations from 1"
_KINDS = {  # findings of which a task knows no number, by task
    "bbox": ("record", "bbox", "bbox missing"),
    "segm": ("record", "bbox", "segmentation", "segmentation unsized"),
    "keypoints": ("record", "bbox", "keypoints", "num_keypoints"),
}
_KINDS["boundary"] = _KINDS["segm"]
_NOTED = {
    "bbox": ("bbox empty", "bbox outside", "bbox reaches out", "bbox corners"),
    "segm": ("segmentation short", "segmentation far"),
    "keypoints": ("visibility",),
}
_NOTED["boundary"] = _NOTED["segm"]
_ALWAYS_NOTED = (
    "size",
    "area",
    "iscrowd",
    "id missing",
    "name",
    "name taken",
    "id",
    "image_id type",
    "category_id type",
)


def read_ground_truth(
    source: Any,
    task: str,
    *,
    image_ids: Iterable[Hashable] | None = None,
    category_ids: Iterable[Hashable] | None = None,
    ignored_by: tuple[str, ...] = ("iscrowd",),
    area_of_box: float | None = None,
    name: str = "the ground truth",
) -> GroundTruthColumns:
    """Columns of a COCO data set, treated as pycocotools treats it: a field `ignore` means nothing, `iscrowd` does.

    Beyond pycocotools: a missing `iscrowd` is 0, a missing `area` that of the mask or box, a missing `num_keypoints` is
    counted. For segm, objects without a mask are ignored; `notes` says so.

    Args:
        source: path, dict with images, annotations, categories, an object with such a dict as `.dataset`, `CocoData`.
        image_ids, category_ids: only these. None: all that the source lists.
        name: what messages call a source that is not a path.
        ignored_by: fields of an annotation that, where they are set, make the object neither to be found nor missed.
        area_of_box: areas are this part of the boxes', as CrowdPose's 0.53, whatever is annotated. None: as annotated.

    Raises:
        DataError: what cannot be read; sizes, areas or boxes that are not finite or negative.
    """
    data = read_coco(source, name)
    data.refuse(("fatal",), tables=("images", "categories"))
    images = _chosen(data.images.rows, image_ids, "image", data.source)
    categories = _chosen(data.categories.rows, category_ids, "category", data.source)
    rows = data.categories.rows
    names = distinct_names([data.categories.names[rows[key]] for key in categories], categories.__getitem__)
    numbers = {key: number for number, key in enumerate(categories)}
    return truth_columns(data, task, images, categories, names, numbers, ignored_by, area_of_box)


def truth_columns(
    data: CocoData,
    task: str,
    image_ids: Sequence[Hashable],
    category_ids: Sequence[Hashable],
    category_names: Sequence[str],
    numbers: Mapping[Hashable, int],
    ignored_by: tuple[str, ...] = ("iscrowd",),
    area_of_box: float | None = None,
) -> GroundTruthColumns:
    """Columns of one task on some images and categories.

    Args:
        image_ids: (I,) the images by their numbers. category_ids, category_names: (K,) likewise.
        numbers: the file's category id -> number; several may have one, those without are not evaluated.

    Raises:
        DataError: objects that no number can be computed of.
    """
    found, listed, named = data.annotations, data.images, data.categories
    image_number, category_number = np.full(len(listed.ids) + 1, -1), np.full(len(named.ids) + 1, -1)
    image_rows = np.array([listed.rows.get(key, -1) for key in image_ids], np.int64)
    image_number[image_rows] = np.arange(len(image_ids))
    image_number[-1] = -1
    for key, number in numbers.items():
        if key in named.rows:
            category_number[named.rows[key]] = number
    image, category = image_number[found.image], category_number[found.category]  # -1, unknown, finds the last: -1
    used, notes = (image >= 0) & (category >= 0), []
    if strange := _strangers(data):
        notes.append(strange)
    if task in ("segm", "boundary"):
        masked = found.masks.kinds > 0
        faulty = [one.rows[0] for one in found.findings.of(("fatal",), ("segmentation", "segmentation unsized"))]
        masked[faulty] = True  # they are refused
        if (used & ~masked).any():
            notes.append(f"{(used & ~masked).sum()} ground-truth objects without a mask are ignored")
        used &= masked
    rows = np.flatnonzero(used)
    boxes = found.boxes[rows]
    if task == "keypoints":
        _ = found.keypoints, found.num_keypoints  # their findings
    if area_of_box is not None and not 0 < area_of_box <= 1:
        raise DataError(f"area_of_box is {area_of_box}; expected a share of the box's area, such as 0.53")
    areas = _areas(data, rows, notes) if area_of_box is None else boxes[:, 2] * boxes[:, 3] * area_of_box
    data.refuse(("fatal",), _KINDS[task], used, ("annotations",))
    columns = GroundTruthColumns(
        image=image[rows],
        category=category[rows],
        boxes=np.nan_to_num(boxes),
        areas=np.nan_to_num(areas),
        crowd=found.crowd[rows],
        ignored=found.flagged(ignored_by)[rows],
        annotation_ids=_annotation_ids(data, rows, notes),
        rows=rows,
        image_ids=list(image_ids),
        category_ids=list(category_ids),
        category_names=list(category_names),
        image_sizes=np.append(listed.sizes, [[0, 0]], axis=0)[image_rows],
        other_image_ids=listed.rows.keys() - set(image_ids),
        other_category_ids=named.rows.keys() - numbers.keys(),
        source=data.source,
        notes=notes,
    )
    if task in ("segm", "boundary"):
        columns.masks = found.masks.take(rows)
    if task == "keypoints":
        columns.keypoints, given = found.keypoints[rows], found.num_keypoints[rows]
        labeled = np.count_nonzero(columns.keypoints[..., 2] > 0, axis=1)
        columns.ignored = columns.crowd | (np.where(np.isnan(given), labeled, given) == 0)
    notes += data.notes(_NOTED[task] + _ALWAYS_NOTED, used)
    return columns


def sorted_ids(ids: Iterable[Hashable]) -> list:
    """Distinct ids in ascending order; numbers before text where both occur."""
    distinct = set(ids)
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=lambda value: (isinstance(value, str), str(value)))


def _chosen(listed: Mapping[Hashable, int], wanted: Iterable[Hashable] | None, what: str, source: str) -> list:
    if wanted is None:
        return sorted_ids(listed)
    wanted = sorted_ids(wanted)
    unknown = [key for key in wanted if key not in listed]
    if unknown:
        raise DataError(f"{source}: has no {what} {unknown[0]!r} ({len(unknown)} such ids were requested)")
    return wanted


def _strangers(data: CocoData) -> str | None:
    """The note on annotations of images or categories that are not listed; an error where all are."""
    found = data.annotations
    strange = np.flatnonzero((found.image < 0) | (found.category < 0))
    if not len(strange):
        return None
    first = int(strange[0])
    kinds = ("record", "image_id", "category_id")
    one = next(one for one in found.findings.of(("fatal", "error"), kinds) if one.rows[0] == first)
    what = f"{len(strange)} annotations are of images or categories that {data.source} does not list"
    where = f"first {data.where('annotations', first)}: {one.text}"
    if len(strange) == len(found):
        raise DataError(f"{data.source}: all {what}: {where}")
    return f"{what}, and are dropped: {where}"


def _annotation_ids(data: CocoData, rows: np.ndarray, notes: list[str]) -> np.ndarray:
    """(G,) ids, 1 where an id is not an integer: only 0 has a meaning."""
    given = [data.annotations.ids[row] for row in rows.tolist()]
    ids = np.array([key if isinstance(key, int) and abs(key) < 2**63 else 1 for key in given], dtype=np.int64)
    if (ids == 0).any():
        notes.append(ID_0_NOTE)
    given = [key for key in given if isinstance(key, (int, str))]
    if len(set(given)) < len(given):
        notes.append(
            f"{len(given) - len(set(given))} annotations have the id of another; each counts here, where pycocotools "
            "takes one of them twice"
        )
    return ids


def _areas(data: CocoData, rows: np.ndarray, notes: list[str]) -> np.ndarray:
    """(G,) areas as annotated; where there is none, of the mask, else of the box."""
    areas = data.annotations.areas[rows]
    missing = np.flatnonzero(np.isnan(areas))
    if len(missing):
        notes.append(
            f"{len(missing)} ground-truth objects have no area; that of their mask, else of their box, is used"
        )
        used = np.zeros(len(data.annotations), bool)
        used[rows[missing]] = True
        areas = np.nan_to_num(data.annotations.measure_areas(rows))
        data.refuse(("fatal",), ("segmentation",), used, ("annotations",))
    return areas
