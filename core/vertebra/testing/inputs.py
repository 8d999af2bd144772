"""Inputs made by hand for the conformance checks: images of noise with known objects, in Detectron2's dict form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vertebra.data import Metadata
from vertebra.models import ShapeSpec
from vertebra.models.batch import IGNORED_LABEL
from vertebra.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

__all__ = ["INPUT_SHAPE", "THINGS", "bare", "make_input", "make_metadata"]

THINGS = ("circle", "square", "triangle")
STUFF = ("sky", "grass")
INPUT_SHAPE = {
    "res3": ShapeSpec(channels=16, stride=8),
    "res4": ShapeSpec(channels=32, stride=16),
    "res5": ShapeSpec(channels=64, stride=32),
}
KEYPOINTS = ("center", "top", "right", "bottom", "left")


def make_metadata(num_things: int = len(THINGS)) -> Metadata:
    """What a dataset of `num_things` classes of objects, with keypoints and semantic labels, knows about itself."""
    things = [*THINGS, *(f"thing {i}" for i in range(len(THINGS), num_things))][:num_things]
    stuff = [*things, *STUFF]
    return Metadata("conformance").set(
        thing_classes=things,
        stuff_classes=stuff,
        ignore_label=IGNORED_LABEL,
        keypoint_names=list(KEYPOINTS),
        keypoint_flip_map=[("left", "right")],
    )


def make_input(
    seed: int = 0,
    size: tuple[int, int] = (64, 96),
    *,
    objects: int = 3,
    edge: tuple[int, int] = (14, 40),
    num_things: int = len(THINGS),
    num_labels: int = len(THINGS) + len(STUFF),
    ignored: bool = False,
    mask_format: str = "polygon",
    original: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """One input: noise, and `objects` rectangles with boxes, masks, keypoints and semantic labels.

    Args:
        size: (height, width) of the image.
        edge: least and largest edge of a box in pixels; (1, 1) makes boxes of one pixel.
        ignored: all semantic labels are 255 and all masks empty.
        mask_format: "polygon" or "bitmask"; empty masks are always bitmasks.
        original: (height, width) requested for the predictions.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    boxes = np.zeros((objects, 4), np.float32)
    classes = rng.integers(0, num_things, objects)
    labels = np.full(size, IGNORED_LABEL, np.uint8) if ignored else _ground(size, num_things, num_labels)
    for row, label in zip(boxes, classes, strict=True):
        w, h = (min(int(rng.integers(edge[0], edge[1] + 1)), side) for side in (width, height))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        row[:] = x, y, x + w, y + h
        if not ignored and label < num_labels:
            labels[y : y + h, x : x + w] = label
    instances = Instances(
        size,
        gt_boxes=Boxes(torch.from_numpy(boxes)),
        gt_classes=torch.from_numpy(classes.astype(np.int64)),
        gt_masks=_masks(boxes, size, ignored, mask_format),
        gt_keypoints=_keypoints(boxes, ignored),
    )
    height, width = original or size
    return {
        "image": image,
        "height": height,
        "width": width,
        "image_id": seed,
        "instances": instances,
        "sem_seg": torch.from_numpy(labels),
    }


def bare(inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without ground truth, as they come at prediction."""
    return [{key: value for key, value in one.items() if key not in ("instances", "sem_seg")} for one in inputs]


def _ground(size: tuple[int, int], num_things: int, num_labels: int) -> np.ndarray:
    """Labels below the objects: two halves, of the classes after the things where there are such."""
    labels = np.full(size, min(num_things, num_labels - 1), np.uint8)
    labels[size[0] // 2 :] = num_labels - 1
    return labels


def _masks(boxes: np.ndarray, size: tuple[int, int], empty: bool, mask_format: str) -> PolygonMasks | BitMasks:
    if mask_format == "polygon" and not empty:
        return PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float64)] for x0, y0, x1, y1 in boxes])
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    if not empty:
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
    return BitMasks(masks)


def _keypoints(boxes: np.ndarray, unlabeled: bool) -> Keypoints:
    """Center and middles of the edges, all visible; or none labeled."""
    x0, y0, x1, y1 = boxes.T  # (n,) each
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    points = np.stack([np.stack(p, axis=1) for p in ((x, y), (x, y0), (x1, y), (x, y1), (x0, y))], axis=1)  # (n, 5, 2)
    seen = np.full((*points.shape[:2], 1), 0.0 if unlabeled else 2.0, np.float32)
    return Keypoints(torch.from_numpy(np.concatenate((points * (not unlabeled), seen), axis=2).astype(np.float32)))
