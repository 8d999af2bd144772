"""Whether a dataset's records fit their images: for `FormatConformance`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.data.masks import decode_segmentation
from vertebra.structures import BoxMode
from vertebra.testing.checks import require

__all__ = ["alike", "check_boxes", "check_one_record_per_image", "check_outlines"]

_ROOM = 1.0  # pixels that a box may reach out of its image
_AGREE = 0.5  # mean overlap of outlines with boxes from which they belong together
_BESIDE = 0.1  # of its sides: how far keypoints may lie beside a box
_READ = 50  # records whose outlines are compared

_CAUSES = {
    "with x and y exchanged": lambda points, size: points[:, ::-1],
    "multiplied by width and height: fractions of the image are not pixels": lambda points, size: points * size,
}


def alike(first: Any, second: Any) -> bool:
    """Equal, arrays by their values; what is not a number is the same as itself."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(alike(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(alike, first, second))
    if hasattr(first, "__array__") or hasattr(second, "__array__"):
        a, b = np.asarray(first), np.asarray(second)
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    return bool(first == second) or (first != first and second != second)


def check_boxes(record: dict[str, Any], where: str) -> None:
    """In the image, and in pixels."""
    height, width = record.get("height"), record.get("width")
    for number, one in enumerate(record.get("annotations", ())):
        box = _box_of(one)
        if box is None or height is None or width is None:
            continue
        x0, y0, x1, y1 = box
        inside = min(x0, y0) >= -_ROOM and x1 <= width + _ROOM and y1 <= height + _ROOM
        require(
            inside or bool(one.get("iscrowd")),
            f"{where}: annotation {number}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) reaches out of the image of "
            f"{width} x {height} pixels (width x height). Is its bbox_mode right (corners XYXY_ABS, corner and "
            "size XYWH_ABS), are x and y in order, is it in pixels?",
        )
        require(
            max(x1 - x0, y1 - y0) > 1 or max(x1, y1) > 1,
            f"{where}: annotation {number}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies in the first pixel. Are "
            "its numbers fractions of the image? Multiply by width and height",
        )


def check_one_record_per_image(records: Sequence[dict[str, Any]]) -> None:
    """No image comes twice with nothing but other annotations."""
    seen: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, record in enumerate(records):
        rest = {key: value for key, value in record.items() if key not in ("annotations", "image_id")}
        first, other = seen.setdefault(record["file_name"], (number, rest))
        require(
            first == number or not alike(rest, other),
            f"{record['file_name']} has two records, {first} and {number}: an image has one, with all its annotations. "
            "Objects of the other record would count as background",
        )


def check_outlines(records: Sequence[dict[str, Any]]) -> None:
    """Polygons, run lengths and keypoints lie, by and large, where the boxes do."""
    outlines, keypoints = list(_outlines(records[:_READ])), list(_keypoints(records[:_READ]))
    for found, fit, name in (
        (outlines, _overlap, "masks (segmentation)"),
        (keypoints, _share_inside, "keypoints"),
    ):
        if not found:
            continue
        where, (points, box, _) = found[0]
        mean = float(np.mean([fit(points, box) for _, (points, box, _) in found]))
        low, high = points.min(axis=0), points.max(axis=0)
        cause = _cause_of(found, fit, mean)
        require(
            mean >= _AGREE,
            f"the {name} of objects do not lie in their boxes. In {where} they reach from ({low[0]:g}, {low[1]:g}) to "
            f"({high[0]:g}, {high[1]:g}), and the box from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g}), in "
            f"pixels. {cause}",
        )


def _cause_of(found: list[Any], fit: Any, mean: float) -> str:
    for cause, change in _CAUSES.items():
        if np.mean([fit(change(points, size), box) for _, (points, box, size) in found]) > max(_AGREE, mean):
            return f"They would fit {cause}"
    return "Are x and y in order, and are they in pixels, as the box is?"


def _outlines(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, tuple[np.ndarray, Any, np.ndarray]]]:
    """Points (P, 2) of each object's mask, its box, and (width, height) of the image."""
    for where, one, box, size in _objects(records):
        segmentation = one.get("segmentation")
        if segmentation is None or len(segmentation) == 0:
            continue
        if isinstance(segmentation, Mapping):
            rows, columns = np.nonzero(decode_segmentation(dict(segmentation), int(size[1]), int(size[0])))
            if not len(rows):
                continue
            points = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]], dtype=float)
        else:
            points = np.concatenate([np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in segmentation])
        yield where, (points, box, size)


def _keypoints(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, tuple[np.ndarray, Any, np.ndarray]]]:
    for where, one, box, size in _objects(records):
        points = np.asarray(one.get("keypoints", ()), dtype=float).reshape(-1, 3)
        labeled = points[points[:, 2] > 0, :2]
        if len(labeled):
            yield where, (labeled, box, size)


def _objects(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], Any, np.ndarray]]:
    for record in records:
        height, width = record.get("height"), record.get("width")
        for number, one in enumerate(record.get("annotations", ())):
            box = _box_of(one)
            if box is not None and not one.get("iscrowd") and height is not None and width is not None:
                yield f"{record['file_name']}, annotation {number},", one, box, np.array([width, height], dtype=float)


def _box_of(annotation: dict[str, Any]) -> list[float] | None:
    """xyxy in pixels; None where it is something else."""
    if annotation.get("bbox_mode") not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        return None
    box = np.asarray(annotation["bbox"], dtype=float).tolist()
    return BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS)


def _overlap(points: np.ndarray, box: Any) -> float:
    """Intersection over union of the box and the smallest one around the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    common = (np.minimum(high, box[2:]) - np.maximum(low, box[:2])).clip(min=0).prod()
    union = (high - low).prod() + (box[2] - box[0]) * (box[3] - box[1]) - common
    return float(common / union) if union > 0 else 0.0


def _share_inside(points: np.ndarray, box: Any) -> float:
    """Of the points, in the box or little beside it."""
    sides = np.subtract(box[2:], box[:2])
    room = _BESIDE * sides + _ROOM
    return float(((points >= box[:2] - room) & (points <= box[2:] + room)).all(axis=1).mean())
