"""A generated scene as COCO writes it: polygons, run lengths, keypoints, the semantic and the panoptic map."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.data.shapes.outlines import KEYPOINT_NAMES
from vertebra.data.shapes.scene import Scene, Thing, clip_to_frame
from vertebra.data.shapes.texture import STUFF
from vertebra.structures import IGNORED_LABEL

__all__ = ["mask_loops", "object_records", "panoptic_ids", "panoptic_segments", "semantic_map"]


def object_records(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """One COCO annotation with keypoints per thing, farthest first. Boxes x, y, w, h of the visible pixels.

    Annotation ids are `100 * image_id + 1` onwards; category ids are the class index plus 1.
    """
    return [
        {
            "id": 100 * image_id + number,
            "image_id": image_id,
            "category_id": thing.class_index + 1,
            "bbox": _box(thing.visible),
            "area": int(np.count_nonzero(thing.visible)),
            "iscrowd": int(thing.crowd),
            "segmentation": _segmentation(thing),
            **_keypoints(thing, scene.things[number:]),
        }
        for number, thing in enumerate(scene.things, start=1)
    ]


def semantic_map(scene: Scene, num_classes: int) -> np.ndarray:
    """(H, W) uint8: the class index on things, `num_classes` + row of `STUFF` elsewhere, 255 on crowds and borders."""
    labels = np.where(scene.border, IGNORED_LABEL, scene.stuff.astype(np.int64) + num_classes)
    for thing in scene.things:
        labels[thing.visible] = IGNORED_LABEL if thing.crowd else thing.class_index
    return labels.astype(np.uint8)


def panoptic_ids(scene: Scene) -> np.ndarray:
    """(H, W) int64 segment ids, 0 on the borders between regions: stuff first, then the things in their order."""
    ids = np.zeros(scene.stuff.shape, np.int64)
    for row in range(len(STUFF)):
        ids[(scene.stuff == row) & ~scene.border] = _segment_id(row)
    for number, thing in enumerate(scene.things):
        ids[thing.visible] = _segment_id(len(STUFF) + number)
    return ids


def panoptic_segments(scene: Scene, ids: np.ndarray, num_classes: int) -> list[dict[str, Any]]:
    """COCO's `segments_info` for the ids of `panoptic_ids`; stuff that things hide completely is omitted."""
    candidates = [(_segment_id(row), num_classes + 1 + row, 0) for row in range(len(STUFF))]
    candidates += [
        (_segment_id(len(STUFF) + number), thing.class_index + 1, int(thing.crowd))
        for number, thing in enumerate(scene.things)
    ]
    segments = []
    for segment_id, category_id, crowd in candidates:
        mask = ids == segment_id
        area = int(np.count_nonzero(mask))
        if area:
            info = {"id": segment_id, "category_id": category_id, "iscrowd": crowd, "bbox": _box(mask), "area": area}
            segments.append(info)
    return segments


def mask_loops(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outlines of a mask along the edges of its pixels: polygons (P, 2) around its parts, and around its holes.

    Parts that touch at a corner only are separate polygons.
    """
    width = mask.shape[1]
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    stride = width + 1  # corner (x, y) has the number y * stride + x
    steps: dict[int, list[int]] = {}  # corner -> next corners; the mask is on the right hand
    for sides, start, end in (
        (inside & ~padded[:-2, 1:-1], 0, 1),  # top edges run to the right
        (inside & ~padded[1:-1, 2:], 1, stride + 1),  # right edges run down
        (inside & ~padded[2:, 1:-1], stride + 1, stride),
        (inside & ~padded[1:-1, :-2], stride, 0),
    ):
        ys, xs = np.nonzero(sides)
        for corner in (ys * stride + xs).tolist():
            steps.setdefault(corner + start, []).append(corner + end)
    right_turn = {1: stride, stride: -1, -1: -stride, -stride: 1}
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    while steps:
        first = here = next(iter(steps))
        direction, corners, area = 0, [], 0
        while True:
            ahead = steps[here]
            turned = here + right_turn.get(direction, 0)
            there = turned if turned in ahead else ahead[0]  # right at a crossing: stays with the same pixel
            ahead.remove(there)
            if not ahead:
                del steps[here]
            if there - here != direction:
                corners.append(here)
                direction = there - here
            if abs(direction) == 1:
                area -= direction * (here // stride)
            here = there
            if here == first and (here not in steps or here + right_turn[direction] not in steps[here]):
                break
        points = np.array([(corner % stride, corner // stride) for corner in corners])
        (outer if area > 0 else holes).append(points)
    return outer, holes


def _segmentation(thing: Thing) -> list[list[float]] | dict[str, Any]:
    """Polygons that pycocotools fills to exactly the visible pixels; run lengths for crowds and where none do."""
    if thing.crowd:
        return {"size": list(thing.visible.shape), "counts": _run_lengths(thing.visible)}
    (outlines,) = thing.outlines
    if len(outlines) == 1 and np.array_equal(thing.visible, thing.mask):
        return [clip_to_frame(outlines[0], *thing.visible.shape).ravel().tolist()]
    outer, holes = mask_loops(thing.visible)
    polygons = [loop.ravel().tolist() for loop in outer]
    if not holes:
        filled = coco_mask.decode(coco_mask.frPyObjects(polygons, *thing.visible.shape)).any(axis=2)
        if np.array_equal(filled, thing.visible):
            return polygons
    packed = coco_mask.encode(np.asfortranarray(thing.visible, np.uint8))
    return {"size": list(thing.visible.shape), "counts": packed["counts"].decode("ascii")}


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed form: lengths of runs down the columns, the first one of zeros (perhaps 0 long)."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return [0, *runs] if flat[0] else runs


def _keypoints(thing: Thing, nearer: list[Thing]) -> dict[str, Any]:
    """Pixel columns and rows with COCO's visibility: 2 visible, 1 behind a nearer thing, 0 (at 0, 0) out of frame."""
    if thing.keypoints is None:
        return {"keypoints": [0] * (3 * len(KEYPOINT_NAMES)), "num_keypoints": 0}
    height, width = thing.visible.shape
    values: list[int] = []
    labeled = 0
    for column, row in np.floor(thing.keypoints).astype(int).tolist():
        if not (0 <= column < width and 0 <= row < height):
            values += [0, 0, 0]
            continue
        labeled += 1
        values += [column, row, 1 if any(other.mask[row, column] for other in nearer) else 2]
    return {"keypoints": values, "num_keypoints": labeled}


def _box(mask: np.ndarray) -> list[int]:
    """x, y, w, h of the smallest box around the pixels of a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def _segment_id(number: int) -> int:
    """Distinct ids that also differ as colors: an odd factor permutes the 24-bit numbers (Knuth's hash constant)."""
    return (number + 1) * 2654435761 % 2**24
