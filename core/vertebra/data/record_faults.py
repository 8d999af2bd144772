"""What may be wrong with the records of a dataset, in the same words whoever reads it.

`RecordCheck` is for standard dicts, which any format or registered function may give; COCO's reader takes the single
checks for the records of its file, before it converts them. An odd `area` is not a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from vertebra.data.catalog import Metadata
from vertebra.data.masks import polygon_fault, rle_fault
from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.structures import BoxMode
from vertebra_eval.coco_objects import polygons_cause
from vertebra_eval.file_names import path_fault
from vertebra_eval.json_file import Problems
from vertebra_eval.panoptic.segments import crowd_fault, is_whole, isthing_fault, segment_faults

__all__ = ["FILE_KEYS", "RecordCheck", "box_fault", "keypoints_fault", "mask_faults", "size_fault"]

FILE_KEYS = ("file_name", "sem_seg_file_name", "pan_seg_file_name")

_BOXES = {
    BoxMode.XYXY_ABS: "4 numbers x0, y0, x1, y1",
    BoxMode.XYWH_ABS: "4 numbers x, y, w, h",
    BoxMode.XYXY_REL: "4 numbers x0, y0, x1, y1",
    BoxMode.XYWH_REL: "4 numbers x, y, w, h",
    BoxMode.XYWHA_ABS: "5 numbers center x, center y, w, h, angle",
}
_PLAIN = {int, float}
_CORNERS = (BoxMode.XYXY_ABS, BoxMode.XYXY_REL)


class RecordCheck:
    """Called with one standard dict after the other; what is wrong goes to `problems`, with image and annotation.

    Args:
        metadata: names of the classes and keypoints; where it has none, every number from 0 passes.
        problems: where faults are added.
        annotations: whether annotations are looked at.
    """

    def __init__(self, metadata: Metadata, problems: Problems, *, annotations: bool = True) -> None:
        self.metadata = metadata
        self.problems = problems
        self.checks: dict[str, Callable[..., list[tuple[str, str]]]] = {"segments_info": self._segment_faults}
        if annotations:
            self.checks["annotations"] = self._annotation_faults
        self.things = len(metadata.get("thing_classes") or ())
        self.stuff = len(segment_stuff_names(metadata))
        self.keypoints = len(metadata.get("keypoint_names") or ())

    def __call__(self, item: Any, number: int) -> bool:
        """Whether the record, the `number`-th, is right."""
        before = self.problems.count
        if not isinstance(item, dict):
            self.problems.add(f"entry {number}", f"is {item!r:.60}, expected a dict")
            return False
        fault = path_fault(item["file_name"]) if "file_name" in item else "has no file_name"
        where = f"entry {number}" if fault else item["file_name"]
        faults = [fault, *(path_fault(item[key], key) for key in FILE_KEYS[1:] if item.get(key) is not None)]
        height, width = item.get("height"), item.get("width")
        if height is not None or width is not None:
            faults.append(size_fault(height, width))
        for fault in filter(None, faults):
            self.problems.add(where, fault)
        if self.problems.count > before:
            return False
        for kind, check in self.checks.items():
            records = item.get(kind)
            if not records:
                continue
            if not isinstance(records, (list, tuple)) or not all(isinstance(record, dict) for record in records):
                self.problems.add(where, f"{kind} is {records!r:.60}, expected a list of dicts")
                continue
            for place, fault in check(records, height, width):
                self.problems.add(f"{where}: {place}", fault)
        return self.problems.count == before

    def _annotation_faults(
        self, annotations: Sequence[dict], height: int | None, width: int | None
    ) -> list[tuple[str, str]]:
        """(where, what) of each fault."""
        found = []
        for i, annotation in enumerate(annotations):
            get = annotation.get
            if not _is_in_range(get("category_id"), self.things):
                found.append((i, _range_fault(get("category_id"), self.things, "thing_classes")))
            if fault := box_fault(get("bbox"), get("bbox_mode")):
                found.append((i, fault))
            if (segmentation := get("segmentation")) is not None:
                found += [(i, fault) for fault in mask_faults(segmentation, height, width)]
            if fault := crowd_fault(get("iscrowd", 0)):
                found.append((i, fault))
            if (keypoints := get("keypoints")) is not None and (fault := keypoints_fault(keypoints, self.keypoints)):
                found.append((i, fault))
        return [(f"annotation {i}", fault) for i, fault in found]

    def _segment_faults(self, segments: Sequence[dict], *size: int | None) -> list[tuple[str, str]]:
        found = segment_faults(segments)
        for segment in () if found else segments:
            if fault := isthing_fault(segment.get("isthing")):
                found.append((f"segment {segment['id']}", fault))
                continue
            count, of = (self.things, "thing_classes") if segment["isthing"] else (self.stuff, "stuff_classes")
            if not _is_in_range(segment.get("category_id"), count):
                found.append((f"segment {segment['id']}", _range_fault(segment.get("category_id"), count, of)))
        return found


def size_fault(height: Any, width: Any) -> str | None:
    """What is wrong with an image's size, or None."""
    if all(is_whole(side) and side > 0 for side in (height, width)):
        return None
    return f"height and width are {height!r} and {width!r}, expected whole numbers above 0"


def box_fault(box: Any, mode: Any = BoxMode.XYWH_ABS, *, may_be_empty: bool = False) -> str | None:
    """What is wrong with one box in a mode of `BoxMode`, or None.

    Args:
        may_be_empty: sides of length 0 pass.
    """
    if not isinstance(mode, int) or mode not in _BOXES:
        return f"bbox_mode is {mode!r}, expected one of BoxMode, such as BoxMode.XYXY_ABS"
    numbers = _numbers(box)
    if numbers is None or len(numbers) != (5 if mode == BoxMode.XYWHA_ABS else 4):
        what = "bbox is missing" if box is None else f"bbox is {box!r:.80}"
        return f"{what}, expected {_BOXES[BoxMode(mode)]}"
    if not _is_finite(numbers):
        return f"bbox {box!r:.80} is not finite"
    corners = mode in _CORNERS
    w, h = (numbers[2] - numbers[0], numbers[3] - numbers[1]) if corners else (numbers[2], numbers[3])
    if w > 0 and h > 0:
        return None
    if w < 0 or h < 0:
        fix = "; x, y must be the upper left corner" if len(numbers) == 4 else ""
        if corners:
            fix = "; x1, y1 must be the lower right corner (if they are width and height, the bbox_mode is XYWH_ABS)"
        return f"bbox {box} has a negative width or height{fix}"
    return None if may_be_empty else f"bbox {box} has a width or height of 0; drop the annotation"


def mask_faults(segmentation: Any, height: int | None, width: int | None) -> list[str]:
    """What is wrong with polygons or run lengths of an image of this size; None: the size is not known."""
    if isinstance(segmentation, (list, tuple)):
        faults = [
            f"segmentation: polygon {i} {fault}"
            for i, polygon in enumerate(segmentation)
            if (fault := polygon_fault(polygon))
        ]
        cause = polygons_cause(segmentation) if faults else None
        return [f"segmentation {cause}"] if cause else faults
    if isinstance(segmentation, dict) and (height is None or width is None):
        size = segmentation.get("size")
        if isinstance(size, (list, tuple)) and len(size) == 2 and size_fault(*size) is None:
            height, width = size
    fault = rle_fault(segmentation, height or 0, width or 0)
    return [f"segmentation {fault}"] if fault else []


def keypoints_fault(keypoints: Any, count: int) -> str | None:
    """What is wrong with the keypoints of one annotation, or None.

    Args:
        count: number of keypoints; 0: any.
    """
    numbers = _numbers(keypoints)
    if numbers is None or len(numbers) % 3 or len(numbers) != 3 * (count or len(numbers) // 3):
        expected = f"{3 * count} numbers" if count else "numbers"
        return f"keypoints must be {expected}: x, y and visibility of each of the category's keypoints"
    if not _is_finite(numbers):
        return "keypoints have a value that is not a finite number"
    visibilities = {*numbers[2::3]}
    return None if visibilities <= {0, 1, 2} else f"keypoint visibilities {sorted(visibilities)}, expected 0, 1 or 2"


def _numbers(values: Any) -> list | None:
    """The numbers in a flat list, tuple or array, or None where it is something else."""
    if type(values) is list and _PLAIN.issuperset(map(type, values)):  # nearly all of them
        return values
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        return None
    real = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return list(values) if real else None


def _is_finite(numbers: list) -> bool:
    try:
        return math.isfinite(sum(numbers))  # NaN and infinity survive a sum
    except OverflowError:  # a whole number beyond any float
        return False


def _is_in_range(value: Any, count: int) -> bool:
    """From 0 to `count - 1`; 0 for a count that is not known."""
    return is_whole(value) and value >= 0 and (value < count or not count)


def _range_fault(category: Any, count: int, names: str) -> str:
    if category is None:
        return "category_id is missing"
    last, has = (count - 1, count) if count else ("K-1", "not been set")
    return f"category_id is {category!r}, expected 0 to {last} ({names} has {has})"
