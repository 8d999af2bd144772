"""Inputs made by hand for the conformance checks: images of noise with known objects, in Detectron2's dict form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vertebra.config.extra_fields import FieldSection
from vertebra.data import Metadata
from vertebra.data.transforms.drawn import BoxesDrawn, Drawn, PointsDrawn, RotatedBoxesDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, MasksDrawn
from vertebra.models import ShapeSpec
from vertebra.models.batch import IGNORED_LABEL
from vertebra.models.pixels import Pixels
from vertebra.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

__all__ = ["INPUT_SHAPE", "THINGS", "add_declared", "bare", "make_input", "make_metadata"]

THINGS = ("circle", "square", "triangle")
STUFF = ("sky", "grass")
INPUT_SHAPE = {
    "res3": ShapeSpec(channels=16, stride=8),
    "res4": ShapeSpec(channels=32, stride=16),
    "res5": ShapeSpec(channels=64, stride=32),
}
_PLACES = ((0.04, 0.06, 0.26, 0.46), (0.3, 0.04, 0.48, 0.3), (0.45, 0.5, 0.9, 0.9))
"""Boxes of the fixed objects, xyxy, as shares of width and height."""
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
    fixed: bool = False,
) -> dict[str, Any]:
    """One input: noise, and `objects` rectangles with boxes, masks, keypoints and semantic labels.

    Args:
        size: (height, width) of the image.
        fixed: objects of different classes that do not overlap, at most 3, two of them in the upper left quarter: where
            boxes twice too large are still inside.
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
    for number, row in enumerate(boxes):
        w, h = (min(int(rng.integers(edge[0], edge[1] + 1)), side) for side in (width, height))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        row[:] = x, y, x + w, y + h
        if fixed:
            row[:] = np.round(np.array(_PLACES[number]) * (width, height, width, height)) + 2 * (seed % 2)
            classes[number] = (number + seed) % num_things
        x0, y0, x1, y1 = row.astype(int)
        if not ignored and classes[number] < num_labels:
            labels[y0:y1, x0:x1] = classes[number]
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


def add_declared(
    given: dict[str, Any], pixels: Mapping[str, Pixels], fields: Mapping[str, FieldSection]
) -> dict[str, Any]:
    """An input with images as the model reads them, and a value for each declared field: around the objects' boxes
    where it has a place.

    Args:
        pixels: of the model: channels and type of each image.
        fields: as `data.fields` declares them.
    """
    size, rng = given["image"].shape[-2:], np.random.default_rng(given["image_id"])
    for name, one in pixels.items():
        if name not in given or len(given[name]) != one.channels or one.dtype != "uint8":
            values = rng.integers(0, 256, (one.channels, *size))
            kind = {"uint8": torch.uint8, "uint16": torch.int32}.get(one.dtype, torch.float32)
            given[name] = torch.from_numpy(values).to(kind)
    boxes = given["instances"].gt_boxes.tensor.double().numpy()
    for name, field in fields.items():
        if field.geometry == "image":
            continue
        whole = boxes[:1] if len(boxes) else np.array([[0.0, 0.0, size[1], size[0]]])  # an image always has its own
        drawn = _field_drawn(field, boxes if field.of_instances else whole, size)
        if field.of_instances:
            given["instances"].set(f"gt_{name}", drawn.structure(size))
        else:
            given[name] = drawn.structure(size)
    return given


def _field_drawn(field: FieldSection, boxes: np.ndarray, size: tuple[int, int]) -> Drawn:
    """Its value for each box: the box itself, upright, its middle, its pixels, 1."""
    if field.geometry == "box":
        return BoxesDrawn(boxes)
    if field.geometry == "rotated_box":
        sides = boxes[:, 2:] - boxes[:, :2]
        return RotatedBoxesDrawn(np.concatenate((boxes[:, :2] + sides / 2, sides, np.zeros((len(boxes), 1))), axis=1))
    if field.geometry == "points":
        middle = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, np.full((len(boxes), 1), 2.0)), axis=1)
        return PointsDrawn(np.repeat(middle[:, None], field.size or 1, axis=1))
    if field.geometry == "mask":
        corners = [[np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])] for x0, y0, x1, y1 in boxes]
        return MasksDrawn(corners)
    if field.geometry == "dense_map":
        return DenseMapDrawn(torch.ones(size), 0.0)
    shape = (len(boxes),) if field.size is None else (len(boxes), field.size)
    return ScalarsDrawn(np.ones(shape, np.int64 if field.integer else np.float64))


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
