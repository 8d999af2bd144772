"""The annotations of a COCO file as columns, made and checked when they are first asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np

from vertebra_eval.coco.fields import (
    box_fault,
    crowd_fault,
    id_cause,
    id_fault,
    is_hashable,
    is_whole,
    keypoints_fault,
    number_rows,
    visibility_fault,
)
from vertebra_eval.coco.images import CocoCategories, CocoImages
from vertebra_eval.findings import Findings
from vertebra_eval.masks import MaskColumn, read_masks

__all__ = ["CocoAnnotations", "mask_of"]

_COLUMNS = ("ids", "image", "category", "boxes", "areas", "crowd", "flags", "masks", "keypoints", "num_keypoints")
_ENOUGH = 2000  # objects that show whether boxes are corners
_FIT = 2.0  # pixels by which a box may differ from its mask


class CocoAnnotations:
    """A annotation records, in the order of the file.

    Attributes:
        ids: (A,) as written, None where there is none.
        image, category: (A,) int64 rows of the images and categories, -1 where there is no such.
        boxes: (A, 4) float64 xywh in pixels, NaN where none can be read.
        areas: (A,) float64 square pixels, NaN where there is none.
        crowd: (A,) bool.
        masks: `MaskColumn` of all.
        keypoints: (A, J, 3) float64 x, y, visibility, zeros where there are none; J is 0 where no record has any.
        has_keypoints: (A,) bool.
        num_keypoints: (A,) float64 as written, NaN where it is not.
        kept: by key to keep: (A,) values as written, None where a record has none.
        findings: of the columns that have been asked for; `settle` asks for all.
    """

    def __init__(
        self, records: list, images: CocoImages, categories: CocoCategories, keep: Collection[str] | None = ()
    ) -> None:
        self._images, self._categories = images, categories
        self._count = len(records)
        self.findings = Findings("annotations")
        odd = [row for row, record in enumerate(records) if not isinstance(record, dict)]
        for row in odd:
            self.findings.add("record", "fatal", [row], f"is {records[row]!r:.60}, expected an object")
        self._odd = frozenset(odd)
        self._records: list[dict] = records if not odd else [one if isinstance(one, dict) else {} for one in records]

        self.kept = {key: self._field(key) for key in (self.keys if keep is None else keep)}

    def __len__(self) -> int:
        return self._count

    @cached_property
    def keys(self) -> frozenset[str]:
        """All keys that records have; to be asked for before `settle`."""
        return frozenset().union(*self._records)

    def settle(self) -> None:
        """Make all columns, and let go of the records."""
        if not self._records:
            return
        for name in _COLUMNS:
            getattr(self, name)
        self._find_corners()
        if set(map(type, self.ids)) <= {int}:  # the parser's numbers would keep its memory
            self.__dict__["ids"] = np.array(self.ids, np.int64).tolist()
        self._records = []

    def flagged(self, fields: Iterable[str]) -> np.ndarray:
        """(A,) bool: one of these fields is set: `iscrowd`, `ignore`, `difficult`."""
        found = np.zeros(len(self), bool)
        for name in fields:
            found |= self.crowd if name == "iscrowd" else self.flags[name]
        return found

    @cached_property
    def ids(self) -> list[Hashable]:
        ids = self._field("id")
        if set(map(type, ids)) <= {int} and len(set(ids)) == len(ids) and all(-(2**63) <= i < 2**63 for i in ids):
            return ids
        seen: set[Hashable] = set()
        missing = [row for row, record in enumerate(self._records) if "id" not in record and row not in self._odd]
        self.findings.add("id missing", "note", missing, "annotations without an id")
        for row, record in enumerate(self._records):
            key = ids[row] = record.get("id")
            if "id" not in record:
                continue
            fault = id_fault(record)
            if fault:
                self.findings.add("id", "error", [row], fault)
                ids[row] = key if is_hashable(key) else None
            elif key in seen:
                self.findings.add("id taken", "error", [row], f"id {key!r} is taken already")
            else:
                seen.add(key)
        return ids

    @cached_property
    def image(self) -> np.ndarray:
        return self._references("image_id", self._images.rows, "images")

    @cached_property
    def category(self) -> np.ndarray:
        return self._references("category_id", self._categories.rows, "categories")

    @cached_property
    def boxes(self) -> np.ndarray:
        values = self._field("bbox")
        missing = [row for row, value in enumerate(values) if value is None or (type(value) is list and not value)]
        for row in missing:
            if row not in self._odd:
                self.findings.add("bbox missing", "fatal", [row], box_fault(values[row]) or "")
            values[row] = None
        boxes = number_rows(values, 4, box_fault, self.findings, "bbox")
        with np.errstate(invalid="ignore", over="ignore"):
            self._note_places(boxes)
        return boxes

    def _note_places(self, boxes: np.ndarray) -> None:
        """Boxes that are legal and rarely meant, by where they lie."""
        sizes = self._sizes()
        known, (height, width) = (sizes > 0).all(axis=1), sizes.T
        x, y, w, h = boxes.T
        empty = (w == 0) | (h == 0)
        self.findings.add("bbox empty", "note", np.flatnonzero(empty), "boxes without area")
        inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (np.minimum(y + h, height) > np.maximum(y, 0))
        outside = known & ~empty & ~np.isnan(x) & ~inside
        self.findings.add("bbox outside", "note", np.flatnonzero(outside), "boxes outside their image")
        reach = np.minimum.reduce([x, y, width - x - w, height - y - h])  # rounding reaches out by less in many sets
        far = known & inside & ~empty & (reach <= -1)
        what = "boxes that reach out of their image by a pixel or more"
        self.findings.add("bbox reaches out", "note", np.flatnonzero(far), what)

    @cached_property
    def areas(self) -> np.ndarray:
        values = self._field("area")
        areas, odd = np.full(len(self), np.nan), []
        plain = set(map(type, values)) <= {int, float}
        try:
            areas[:] = values if plain else [np.nan if value is None else float(value) for value in values]
        except (TypeError, ValueError, OverflowError):
            for row, value in enumerate(values):
                areas[row] = _float(value)
        finite = np.isfinite(areas)
        if not finite.all():
            odd = [row for row in np.flatnonzero(~finite).tolist() if values[row] is not None]
            areas[~finite] = np.nan
        self.findings.add("area", "note", odd, "areas that are not finite numbers; they are computed")
        return areas

    def measure_areas(self, rows: np.ndarray | None = None) -> np.ndarray:
        """(A,) areas, or those of some rows: as annotated, else of the mask, else of the box. Called for
        all, it keeps them as the column."""
        chosen = np.arange(len(self)) if rows is None else rows
        areas = self.areas[chosen]
        missing = np.flatnonzero(np.isnan(areas))
        if len(missing):
            masks, boxes = self.masks.take(chosen[missing]), self.boxes[chosen[missing]]
            areas[missing] = np.where(masks.kinds > 0, masks.areas(), boxes[:, 2] * boxes[:, 3])
        if rows is None:
            self.__dict__["areas"] = areas
        return areas

    @cached_property
    def crowd(self) -> np.ndarray:
        values = self._field("iscrowd")
        if not set(map(type, values)) <= {int, bool, type(None)} or not set(values) <= {0, 1, None}:
            for row, value in enumerate(values):
                if value is not None and (fault := crowd_fault(value)):
                    self.findings.add("iscrowd", "error", [row], fault)
        return np.fromiter(map(_is_set, values), bool, len(values))

    @cached_property
    def flags(self) -> dict[str, np.ndarray]:
        return {name: np.fromiter(map(_is_set, self._field(name)), bool, len(self)) for name in ("ignore", "difficult")}

    @cached_property
    def masks(self) -> MaskColumn:
        known = self.image >= 0
        sizes = self._sizes()
        values = [mask_of(value) for value in self._field("segmentation")]
        if not known.all():
            values = [value if there else None for value, there in zip(values, known.tolist(), strict=True)]
        read = read_masks(values, sizes)
        for row, faults in sorted(read.faults.items()):
            for fault in faults:
                self.findings.add("segmentation", "fatal", [row], fault)
        for row in read.unsized:
            text = "segmentation is a polygon, which needs height and width of the image"
            self.findings.add("segmentation unsized", "fatal", [row], text)
        what = "polygons of less than 3 points, dropped"
        self.findings.add("segmentation short", "note", read.short, what)
        self.findings.add("segmentation far", "note", read.far, "masks that reach far out of their image, cut")
        return read.column

    @property
    def keypoints(self) -> np.ndarray:
        return self._keypoints[0]

    @property
    def has_keypoints(self) -> np.ndarray:
        return self._keypoints[1]

    @cached_property
    def _keypoints(self) -> tuple[np.ndarray, np.ndarray]:
        values = self._field("keypoints")
        values = [
            None if value is None or (hasattr(value, "__len__") and not len(value)) else value for value in values
        ]
        count = len(self._categories.keypoint_names)
        if not count:
            lists = (len(value) for value in values if isinstance(value, (list, tuple, np.ndarray)))
            count = next((length // 3 for length in lists if length % 3 == 0), 0)

        def fault(value: Any) -> str | None:
            return keypoints_fault(value, count)

        rows = number_rows(values, 3 * count, fault, self.findings, "keypoints")
        keypoints = rows.reshape(len(self), count, 3)
        there = ~np.isnan(keypoints).any(axis=(1, 2)) if count else np.zeros(len(self), bool)
        seen = keypoints[..., 2]
        odd = np.flatnonzero(there & ~np.isin(seen, (0, 1, 2)).all(axis=1)) if count else ()
        for row in map(int, odd):
            self.findings.add("visibility", "error", [row], visibility_fault(keypoints[row]) or "")
        if not self._categories.keypoint_names:
            unnamed = np.flatnonzero(there & (keypoints != 0).any(axis=(1, 2))) if count else ()
            self.findings.add(
                "keypoints unnamed",
                "note",
                unnamed,
                "objects with keypoints that no category names in a list `keypoints`",
            )
        return np.where(np.isnan(keypoints), 0.0, keypoints), there

    @cached_property
    def num_keypoints(self) -> np.ndarray:
        counts = np.full(len(self), np.nan)
        for row, value in enumerate(self._field("num_keypoints")):
            if value is not None:
                counts[row] = _float(value)
                if np.isnan(counts[row]):
                    text = f"num_keypoints is {value!r:.60}, expected a whole number"
                    self.findings.add("num_keypoints", "fatal", [row], text)
        return counts

    def _sizes(self) -> np.ndarray:
        """(A, 2) height, width of each annotation's image; 0 where unknown."""
        return np.append(self._images.sizes, [[0, 0]], axis=0)[self.image]  # -1, unknown, finds the last

    def _field(self, name: str) -> list:
        return [record.get(name) for record in self._records]

    def _references(self, field: str, rows: dict[Hashable, int], table: str) -> np.ndarray:
        """(A,) int64 rows of the records that a field names."""
        keys = self._field(field)
        try:
            found = np.fromiter(map(rows.get, keys, repeat(-1)), np.int64, len(keys))
        except TypeError:  # lists and objects
            keys = [key if is_hashable(key) else None for key in keys]
            found = np.fromiter(map(rows.get, keys, repeat(-1)), np.int64, len(keys))
        strange = set(np.flatnonzero(found < 0).tolist())
        if not set(map(type, keys)) <= {int, str}:  # True would be 1
            strange |= {row for row, key in enumerate(keys) if not (is_whole(key) or isinstance(key, str))}
        for row in sorted(strange - self._odd):
            key = self._records[row].get(field)
            text = f"{field} {key!r:.60} is not among the {table}{id_cause(key, rows)}"
            if key is None:
                text = f"{field} is missing"
            kind = field
            if found[row] >= 0:
                kind = f"{field} type"
                text = f"{field} is {key!r:.60}, expected a whole number or a text{id_cause(key, rows)}"
            self.findings.add(kind, "error", [row], text)
        return found

    def _find_corners(self) -> None:
        """Boxes that are corners: they fit polygons, or without a mask the area, as nothing else."""
        sound = np.flatnonzero(~np.isnan(self.boxes[:, 0]) & (self.image >= 0) & (self.category >= 0))[:_ENOUGH]
        corners: Counter[bool] = Counter()
        for row in sound.tolist():
            corners.update(self._looks_like_corners(row))
        if corners[True] >= 3 and corners[True] > 9 * corners[False]:
            what = f"{corners[True]} boxes fit their masks or areas only as x1, y1, x2, y2; bbox must be x, y, w, h"
            self.findings.add("bbox corners", "error", [int(sound[0])], what)

    def _looks_like_corners(self, row: int) -> list[bool]:
        """[True] if the box fits polygons or area as corners only, [False] if as corner and size only, else []."""
        a, b, c, d = self.boxes[row].tolist()
        outline = self.masks.outline(row)
        if outline is not None and len(outline):
            right, bottom = outline.reshape(-1, 2).max(axis=0).tolist()
            size_fits = abs(a + c - right) <= _FIT and abs(b + d - bottom) <= _FIT
            corners_fit = abs(c - right) <= _FIT and abs(d - bottom) <= _FIT
        else:
            area = float(self.areas[row])  # of the box where there is no mask
            if self.masks.kinds[row] or np.isnan(area) or c <= a or d <= b:
                return []
            size_fits = abs(c * d - area) <= 0.01 * area
            corners_fit = abs((c - a) * (d - b) - area) <= 0.01 * area
        return [corners_fit] if size_fits != corners_fit else []


def mask_of(segmentation: Any) -> Any:
    """A `segmentation` without empty polygons; None where that leaves no mask (`null`, `{}`, `[]`, `[[]]`)."""
    if isinstance(segmentation, list):
        if set(map(type, segmentation)) <= {list} and all(segmentation):  # nearly always
            return segmentation or None
        segmentation = [one for one in segmentation if not (isinstance(one, (list, tuple)) and not len(one))]
    return None if isinstance(segmentation, (list, dict)) and not segmentation else segmentation


def _is_set(value: Any) -> bool:
    try:
        return bool(value)
    except ValueError:  # an array
        return bool(np.any(value))


def _float(value: Any) -> float:
    """The number, of text too; NaN for what is none, infinity for one beyond a float's range."""
    try:
        return float(value)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan
