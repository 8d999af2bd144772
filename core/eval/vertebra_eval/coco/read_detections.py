"""COCO results (a file or a list of dicts) to columns."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Hashable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns, can_be_ranked
from vertebra_eval.coco.fields import id_cause, is_hashable, keypoints_fault, number_rows, numbers_of
from vertebra_eval.errors import DataError
from vertebra_eval.files import read_json
from vertebra_eval.findings import Findings
from vertebra_eval.masks import MaskColumn, read_masks

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
        name, records = str(source), read_json(source, unique_keys=False)
    if isinstance(records, dict) and "annotations" in records:
        records = records["annotations"]
    if not isinstance(records, list) or not all(issubclass(kind, dict) for kind in set(map(type, records))):
        raise DataError(f"{name}: COCO results are a list of objects with image_id, category_id, score and the rest")
    first = records[0] if records else {"bbox": [0.0] * 4}
    image, category, kept, notes = _numbers(records, truth, name)
    reader = _Records(records, np.flatnonzero(kept), name)
    image, category = image[kept], category[kept]
    keypoints, masks = None, None
    if task in ("segm", "boundary") or ("segmentation" in first and not _has_box(first)):
        masks = reader.masks(_has_box(first), truth, image)
    if _has_box(first):
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


class _Records:
    """The records that take part, with errors that name them by their number in the file.

    Args:
        rows: (n,) their numbers.
    """

    def __init__(self, records: list[dict], rows: np.ndarray, source: str) -> None:
        self.records = records if len(rows) == len(records) else [records[row] for row in rows.tolist()]
        self.rows, self.source = rows, source
        self.notes: list[str] = []

    def numbers(self, name: str) -> np.ndarray:
        """(n,) float64 of a field with one number; None is NaN."""
        values = self._field(name)
        try:
            given = [np.nan if value is None else value for value in values] if _has_none(values) else values
            return np.frombuffer(array("d", given), np.float64)
        except (TypeError, OverflowError):
            found = Findings("results")
            for row, value in enumerate(values):
                if (value is not None and numbers_of([value]) is None) or _is_huge(value):
                    found.add(name, "fatal", [row], f"{name} is {value!r:.60}, expected a number")
            self._refuse(found)
            return np.array([np.nan if value is None else float(value) for value in values])

    def boxes(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """(n, 4) float64 xywh, of all records or of some places among them."""
        chosen = self.records if rows is None else [self.records[row] for row in rows]
        return self._number_rows([record.get("bbox") for record in chosen], 4, _box_fault, rows)

    def keypoints(self) -> np.ndarray:
        """(n, J, 3) float64."""
        values = self._field("keypoints")
        lists = (len(value) for value in values if isinstance(value, (list, tuple, np.ndarray)))
        count = next((length // 3 for length in lists if length and length % 3 == 0), 0)
        if values and not count:
            found = Findings("results")
            found.add("keypoints", "fatal", [0], "keypoints must be numbers: x, y and score of each")
            self._refuse(found)
        points = self._number_rows(values, 3 * count, lambda value: _keypoints_fault(value, count))
        return points.reshape(len(values), count, 3)

    def masks(self, by_box: bool, truth: GroundTruthColumns, image: np.ndarray) -> MaskColumn:
        """The masks of all records; where `by_box`, a box stands for a mask that is not there."""
        segmentations = [record.get("segmentation") for record in self.records]
        found = Findings("results")
        for row, one in enumerate(segmentations):
            if not isinstance(one, (list, tuple, dict, type(None))):
                kind = type(one).__name__
                text = f"has a {kind} as segmentation; expected run lengths (RLE: an object with size and counts, as "
                found.add("mask", "fatal", [row], f"{text}pycocotools.mask.encode makes of an array) or polygons")
        self._refuse(found)
        missing = [row for row, segmentation in enumerate(segmentations) if not segmentation]
        if not by_box:
            found.add("mask", "fatal", missing, "has no segmentation")
            self._refuse(found)
        for row, (x, y, w, h) in zip(missing, self.boxes(missing).tolist(), strict=True):
            segmentations[row] = [[x, y, x, y + h, x + w, y + h, x + w, y]] if np.isfinite(x + y + w + h) else None
        sizes = np.zeros((len(image), 2)) if truth.image_sizes is None else truth.image_sizes[image]
        read = read_masks(segmentations, sizes)
        for row in read.unsized:
            text = "segmentation is a polygon, which needs height and width of the image in the ground truth"
            read.faults[row] = [text]
        for row, faults in sorted(read.faults.items()):
            found.add("mask", "fatal", [row], faults[0])
        self._refuse(found)
        for rows, what in (
            (read.short, "polygons of less than 3 points, dropped"),
            (read.far, "masks that reach far out of their image, cut"),
        ):
            if len(rows):
                first = self.rows[int(rows.min())]
                self.notes.append(f"{self.source}: {what}: {len(rows)} (first record {first})")
        return read.column

    def _field(self, name: str) -> list:
        try:
            return list(map(itemgetter(name), self.records))
        except KeyError:
            found = Findings("results")
            missing = [row for row, record in enumerate(self.records) if name not in record]
            found.add(name, "fatal", missing, f"has no {name}")
            self._refuse(found)
            raise

    def _number_rows(
        self, values: list, length: int, fault: Callable[[Any], str | None], rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """(n, length) float64; numbers that are not finite stay, as they are dropped with a note."""
        found = Findings("results")
        given = [() if value is None else value for value in values] if _has_none(values) else values
        numbers = number_rows(given, length, fault, found, "field")
        for row in {one.rows[0] for one in found}:  # null is what JSON makes of NaN
            if isinstance(given[row], (list, tuple)):
                given[row] = [np.nan if number is None else number for number in given[row]]
        if len(found.of(("fatal",))):
            found = Findings("results")
            numbers = number_rows(given, length, fault, found, "field")
        self._refuse(found, rows)
        return numbers

    def _refuse(self, found: Findings, rows: Sequence[int] | None = None) -> None:
        """Raises DataError for the first finding."""
        for one in found:
            place = one.rows[0] if rows is None else rows[one.rows[0]]
            where = f"record {self.rows[place]} (image {self.records[place]['image_id']!r})"
            count = sum(len(other.rows) for other in found)
            more = f" ({count} such records)" if count > 1 else ""
            raise DataError(f"{self.source}: {where}: {one.text}{more}")


def _box_fault(box: Any) -> str | None:
    """Like `fields.box_fault`, but what is not finite or negative passes: such detections are dropped and counted."""
    numbers = numbers_of(box)
    if numbers is None or len(numbers) != 4 or any(map(_is_huge, numbers)):
        return f"bbox is {'missing' if box == () else format(str(box), '.80')}, expected 4 numbers x, y, w, h"
    return None


def _keypoints_fault(keypoints: Any, count: int) -> str | None:
    numbers = numbers_of(keypoints)
    if numbers is not None and len(numbers) == 3 * count and count and not any(map(_is_huge, numbers)):
        return None
    return keypoints_fault(keypoints, count) or "keypoints must be numbers: x, y and visibility of each"


def _has_none(values: list) -> bool:
    return type(None) in set(map(type, values))


def _is_huge(value: Any) -> bool:
    """A whole number beyond any float."""
    try:
        float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False
    return False


def _has_box(record: dict) -> bool:
    box = record.get("bbox")
    return box is not None and not (hasattr(box, "__len__") and len(box) == 0)


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
