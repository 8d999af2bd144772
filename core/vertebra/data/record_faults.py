"""What may be wrong with the records of a dataset, in the same words whoever reads it.

`RecordCheck` is for standard dicts, which any format or registered function may give; the single checks are those of
the reader of COCO files. An odd `area` is not a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vertebra.data.catalog import Metadata
from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.structures import BoxMode
from vertebra_eval.coco import fields
from vertebra_eval.coco.fields import crowd_fault, is_whole, keypoints_fault, numbers_of, size_fault, visibility_fault
from vertebra_eval.files import Problems
from vertebra_eval.files.file_names import path_fault
from vertebra_eval.masks import mask_faults
from vertebra_eval.panoptic.data import isthing_fault, segment_faults

__all__ = ["FILE_KEYS", "RecordCheck", "box_fault"]

FILE_KEYS = ("file_name", "sem_seg_file_name", "pan_seg_file_name")

_BOXES = {
    BoxMode.XYXY_ABS: "4 numbers x0, y0, x1, y1",
    BoxMode.XYWH_ABS: "4 numbers x, y, w, h",
    BoxMode.XYXY_REL: "4 numbers x0, y0, x1, y1",
    BoxMode.XYWH_REL: "4 numbers x, y, w, h",
    BoxMode.XYWHA_ABS: "5 numbers center x, center y, w, h, angle",
}
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
        size = None if height is None or width is None else (height, width)
        for i, annotation in enumerate(annotations):
            get = annotation.get
            if not _is_in_range(get("category_id"), self.things):
                found.append((i, _range_fault(get("category_id"), self.things, "thing_classes")))
            if fault := box_fault(get("bbox"), get("bbox_mode")):
                found.append((i, fault))
            if (segmentation := get("segmentation")) is not None:
                found += [(i, fault) for fault in mask_faults(segmentation, size)]
            if fault := crowd_fault(get("iscrowd", 0)):
                found.append((i, fault))
            points = get("keypoints")
            if points is not None and (fault := keypoints_fault(points, self.keypoints) or visibility_fault(points)):
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


def box_fault(box: Any, mode: Any) -> str | None:
    """What is wrong with one box in a mode of `BoxMode`, or None."""
    if not isinstance(mode, int) or mode not in _BOXES:
        return f"bbox_mode is {mode!r}, expected one of BoxMode, such as BoxMode.XYXY_ABS"
    corners = mode in _CORNERS
    numbers = numbers_of(box)
    sizes = box
    if corners and numbers is not None and len(numbers) == 4:
        sizes = [*numbers[:2], numbers[2] - numbers[0], numbers[3] - numbers[1]]
    fault = fields.box_fault(sizes, _BOXES[BoxMode(mode)])
    if fault is None and min(sizes[2:4]) > 0:
        return None
    if fault is None:
        return f"bbox {box} has a width or height of 0; drop the annotation"
    if fault.endswith("is not finite"):
        return f"bbox {box!r:.80} is not finite"
    if corners and "negative" in fault:
        fix = "x1, y1 must be the lower right corner (if they are width and height, the bbox_mode is XYWH_ABS)"
        return f"bbox {box} has a negative width or height; {fix}"
    return fault


def _is_in_range(value: Any, count: int) -> bool:
    """From 0 to `count - 1`; 0 for a count that is not known."""
    return is_whole(value) and value >= 0 and (value < count or not count)


def _range_fault(category: Any, count: int, names: str) -> str:
    if category is None:
        return "category_id is missing"
    last, has = (count - 1, count) if count else ("K-1", "not been set")
    return f"category_id is {category!r}, expected 0 to {last} ({names} has {has})"
