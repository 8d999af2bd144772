"""Records of COCO results to arrays, field by field, with errors that name the record."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from vertebra_eval.coco.columns import GroundTruthColumns
from vertebra_eval.coco.fields import keypoints_fault, number_rows, numbers_of
from vertebra_eval.errors import DataError
from vertebra_eval.findings import Findings
from vertebra_eval.masks import MaskColumn, read_masks

__all__ = ["Records", "has_box"]


class Records:
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


def has_box(record: dict) -> bool:
    box = record.get("bbox")
    return box is not None and not (hasattr(box, "__len__") and len(box) == 0)
