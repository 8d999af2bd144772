"""One generated picture of the dataset `shapes`: where its objects lie, how they look, which pixels each one shows.

Objects are painted one over the other, so a later one hides an earlier one. Coordinates are continuous pixels:
pixel (row 0, column 0) covers x and y from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from vertebra.data.shapes.options import ShapesOptions
from vertebra.data.shapes.outlines import COLORS, KINDS, OUTLINES, keypoints_of
from vertebra.data.shapes.texture import background

__all__ = ["Scene", "Thing", "clip_to_frame", "draw_scene", "rasterize"]

_PATTERNS = ("striped", "dotted", "checked", "banded")  # half of the objects are plain
_SUPERSAMPLING = 3  # painted finer by this factor, then averaged: soft edges
_MIN_VISIBLE = 0.35  # share of an object's area that must show; less than that and it is not drawn
_MAX_OVERLAP = 0.3  # intersection over union that the extents of two objects may have
_COLOR_FOLLOWS_CLASS = 0.5  # share of the objects that wear their class's usual color
_MIN_CONTRAST = 70.0  # RGB distance of an object's color from the mean color behind it, where there is a choice


@dataclass
class Thing:
    """One object or one crowd.

    Args:
        class_index: row of the class list.
        outlines: one per member, each the outer polygon (P, 2) and perhaps its hole's; not clipped to the frame.
        keypoints: (5, 2) points, or None for a crowd.
        turn: rotation in radians, clockwise on the screen.
        crowd: whether this is a group labeled as one.
        mask: (H, W) bool, the pixels it covers were nothing in front of it.
        visible: (H, W) bool, the pixels where it shows.
    """

    class_index: int
    outlines: list[tuple[np.ndarray, ...]]
    keypoints: np.ndarray | None
    turn: float = 0.0
    crowd: bool = False
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    visible: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))


@dataclass
class Scene:
    """A picture and all that is known of it.

    Args:
        image: (H, W, 3) uint8 RGB.
        things: from the farthest to the nearest.
        stuff: (H, W) uint8 rows of `STUFF`, also behind the things.
        border: (H, W) bool, pixels between two regions of stuff.
    """

    image: np.ndarray
    things: list[Thing]
    stuff: np.ndarray
    border: np.ndarray


def draw_scene(rng: np.random.Generator, options: ShapesOptions) -> Scene:
    """A random scene. Equal states of `rng` give equal scenes."""
    height = int(rng.integers(options.height[0], options.height[1] + 1))
    width = int(rng.integers(options.width[0], options.width[1] + 1))
    canvas, stuff, border = background(rng, height, width)
    things = _keep_visible(_place_things(rng, options, height, width), height, width)
    for thing in things:
        _paint(rng, canvas, thing)
    canvas *= rng.uniform(0.75, 1.1)  # exposure
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(0, 6))  # sensor noise
    image = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return Scene(image, things, stuff, border)


def rasterize(outlines: list[tuple[np.ndarray, ...]], height: int, width: int) -> np.ndarray:
    """(H, W) bool: the pixels inside, by the rule of pycocotools, so that COCO tools see the same mask."""
    mask = np.zeros((height, width), bool)
    for outer, *holes in outlines:
        mask |= _fill(outer, height, width)
        for hole in holes:
            mask &= ~_fill(hole, height, width)
    return mask


def clip_to_frame(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part (P, 2) of a polygon inside the frame, to 2 decimals; with no points where none is.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping", 1974: one side of the frame after the other.
    """
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        inside = sign * (polygon[:, axis] - limit) >= 0
        if inside.all():
            continue
        kept = []
        for i in range(len(polygon)):
            before, here = polygon[i - 1], polygon[i]
            if inside[i - 1] != inside[i]:
                share = (limit - before[axis]) / (here[axis] - before[axis])
                crossing = before + share * (here - before)
                crossing[axis] = limit
                kept.append(crossing)
            if inside[i]:
                kept.append(here)
        polygon = np.array(kept).reshape(-1, 2)
        if not len(polygon):
            break
    return np.round(polygon, 2)


def _fill(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    clipped = clip_to_frame(polygon, height, width)
    if len(clipped) < 3:
        return np.zeros((height, width), bool)
    return coco_mask.decode(coco_mask.frPyObjects([clipped.ravel().tolist()], height, width))[..., 0].astype(bool)


def _place_things(rng: np.random.Generator, options: ShapesOptions, height: int, width: int) -> list[Thing]:
    """A crowd now and then, farthest, and then the objects. Their masks are not there yet."""
    if rng.random() < options.empty:
        return []
    things = []
    if rng.random() < options.crowds:
        things.append(_place_crowd(rng, options.num_classes, height, width))
    short = min(height, width)
    extents: list[tuple[float, float, float]] = []  # x, y, radius
    for _ in range(int(rng.integers(1, options.max_objects + 1))):
        for _ in range(12):  # a crowded picture gets fewer objects
            radius = 0.5 * short * np.exp(rng.uniform(*np.log(options.object_size)))
            x, y = rng.uniform(0.03, 0.97, 2) * (width, height)
            if all(_square_iou((x, y, radius), other) <= _MAX_OVERLAP for other in extents):
                extents.append((x, y, radius))
                things.append(_make_object(rng, options.num_classes, (x, y), radius))
                break
    return things


def _make_object(rng: np.random.Generator, num_classes: int, center: tuple[float, float], radius: float) -> Thing:
    class_index = int(rng.integers(num_classes))
    kind = KINDS[class_index]
    turn = rng.uniform(-0.4, 0.4)  # up to 23 degrees: top stays top, a square never becomes a diamond
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    scale = radius * np.array((stretch, 1 / stretch))

    def place(points: np.ndarray) -> np.ndarray:
        return (points * scale) @ _rotation(turn).T + center

    outlines = tuple(place(polygon) for polygon in OUTLINES[kind])
    return Thing(class_index, [outlines], place(keypoints_of(kind)), turn)


def _place_crowd(rng: np.random.Generator, num_classes: int, height: int, width: int) -> Thing:
    """Many tiny objects of one class close together."""
    class_index = int(rng.integers(num_classes))
    polygons = OUTLINES[KINDS[class_index]]
    short = min(height, width)
    center = rng.uniform(0.2, 0.8, 2) * (width, height)
    outlines = []
    for _ in range(int(rng.integers(7, 16))):
        angle, reach = rng.uniform(0, 2 * np.pi), 0.2 * short * np.sqrt(rng.random())
        middle = center + reach * np.array((1.3 * np.cos(angle), 0.7 * np.sin(angle)))
        radius = max(short * rng.uniform(0.03, 0.05), 2.5)
        turned = [radius * (polygon @ _rotation(rng.uniform(-0.4, 0.4)).T) + middle for polygon in polygons]
        outlines.append(tuple(turned))
    return Thing(class_index, outlines, None, crowd=True)


def _keep_visible(things: list[Thing], height: int, width: int) -> list[Thing]:
    """Fill in the masks, nearest first, and drop what is hardly visible, so that no label is a mere sliver."""
    covered = np.zeros((height, width), bool)
    kept = []
    for thing in reversed(things):
        thing.mask = rasterize(thing.outlines, height, width)
        thing.visible = thing.mask & ~covered
        whole = sum(_area(outer) - sum(map(_area, holes)) for outer, *holes in thing.outlines)
        if np.count_nonzero(thing.visible) >= max(_MIN_VISIBLE * whole, 8):
            covered |= thing.mask
            kept.append(thing)
    return kept[::-1]


def _paint(rng: np.random.Generator, canvas: np.ndarray, thing: Thing) -> None:
    """Paint one thing onto the canvas (H, W, 3), in place."""
    height, width = canvas.shape[:2]
    corners = np.concatenate([polygons[0] for polygons in thing.outlines])
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    crop = canvas[top:bottom, left:right]  # (h, w, 3)
    cover, edge = _soft_masks(thing.outlines, (left, top), crop.shape[:2])
    pattern = "plain" if rng.random() < 0.5 else str(rng.choice(_PATTERNS))
    fill, second = _choose_colors(rng, thing.class_index, crop.mean(axis=(0, 1)))
    middle, radius = (corners.min(axis=0) + corners.max(axis=0)) / 2, np.ptp(corners, axis=0).max() / 2
    ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    u, v = (np.stack((xs - middle[0], ys - middle[1]), axis=-1) @ _rotation(thing.turn)).transpose(2, 0, 1) / radius
    share = _pattern_share(rng, pattern, u, v)[..., None] * np.float32(rng.uniform(0.5, 1))
    paint = fill + (second - fill) * share
    light = rng.uniform(0, 2 * np.pi)
    paint = paint * (1 + 0.16 * (np.cos(light) * u + np.sin(light) * v))[..., None]
    if rng.random() < 0.7:  # a rim, darker or lighter
        paint = paint + (np.float32(30 if rng.random() < 0.7 else 250) - paint) * (0.75 * edge[..., None])
    crop += (paint.astype(np.float32) - crop) * cover[..., None]


def _soft_masks(
    outlines: list[tuple[np.ndarray, ...]], corner: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) float32 each, 0 to 1: how much of a pixel the thing covers, and how much its rim does."""
    finer = (size[1] * _SUPERSAMPLING, size[0] * _SUPERSAMPLING)
    cover, edge = Image.new("L", finer), Image.new("L", finer)
    cover_pen, edge_pen = ImageDraw.Draw(cover), ImageDraw.Draw(edge)
    for polygons in outlines:
        for number, polygon in enumerate(polygons):
            points = [(float(x), float(y)) for x, y in (polygon - corner) * _SUPERSAMPLING - 0.5]
            cover_pen.polygon(points, fill=0 if number else 255)
            edge_pen.line([*points, points[0]], fill=255, width=2 * _SUPERSAMPLING - 1)
    return _shares(cover), _shares(edge)


def _shares(mask: Image.Image) -> np.ndarray:
    """Of a finer mask of 0 and 255 the share, 0 to 1, that each pixel covers."""
    return np.asarray(mask.reduce(_SUPERSAMPLING), np.float32) / 255


def _choose_colors(rng: np.random.Generator, class_index: int, behind: np.ndarray) -> list[np.ndarray]:
    """Fill and pattern color, (3,) each. They hint at the class at most; the fill stands out from `behind`."""
    names = list(COLORS)
    fill = second = names[class_index % len(names)]
    if rng.random() >= _COLOR_FOLLOWS_CLASS:
        fill = names[rng.integers(len(names))]
    for _ in range(6):
        if np.linalg.norm(np.array(COLORS[fill]) - behind) >= _MIN_CONTRAST:
            break
        fill = names[rng.integers(len(names))]
    while second == fill:
        second = names[rng.integers(len(names))]
    return [np.array(COLORS[name], np.float32) + rng.uniform(-16, 16, 3) for name in (fill, second)]


def _pattern_share(rng: np.random.Generator, pattern: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(h, w) float32, 0 to 1: how much of the second color a pixel has. u and v lie in about [-1, 1]."""
    if pattern == "plain":
        return np.zeros_like(u)
    phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    pace = np.float32(rng.uniform(6.5, 8.5))
    if pattern == "striped":
        wave = np.cos(pace * u + phase[0])
    elif pattern == "banded":
        wave = np.cos(0.8 * pace * v + phase[0])
    elif pattern == "checked":
        wave = np.cos(0.9 * pace * u + phase[0]) * np.cos(0.9 * pace * v + phase[1]) * 2
    else:  # dotted
        wave = np.cos(1.2 * pace * u + phase[0]) + np.cos(1.2 * pace * v + phase[1]) - 0.7
    return np.clip(wave * 3 + 0.5, 0, 1)


def _rotation(turn: float) -> np.ndarray:
    """(2, 2) matrix that turns column vectors (x, y) clockwise on the screen."""
    return np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))


def _square_iou(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Intersection over union of two squares given by center and half side."""
    sides = [min(a[i] + a[2], b[i] + b[2]) - max(a[i] - a[2], b[i] - b[2]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (4 * a[2] ** 2 + 4 * b[2] ** 2 - shared)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
