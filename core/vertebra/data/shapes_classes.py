"""The classes of the generated dataset `shapes`: twelve outlines, then outlines with patterns, then with colors too.

An outline lies in its own frame: the origin is the object's center, y points down, and all points are within
distance 1 of the center.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from vertebra.errors import DataError

__all__ = [
    "COLORS",
    "KEYPOINT_NAMES",
    "KINDS",
    "MAX_CLASSES",
    "PATTERNS",
    "SKELETON",
    "ShapeClass",
    "keypoints_of",
    "outline_of",
    "shape_classes",
]

KINDS = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "heart",
    "ring",
    "arrow",
    "hexagon",
    "crescent",
    "diamond",
    "drop",
)
PATTERNS = ("plain", "striped", "dotted", "checked", "banded")
COLORS = {  # sRGB, 0 to 255
    "red": (214, 48, 49),
    "blue": (52, 101, 214),
    "yellow": (244, 203, 58),
    "purple": (136, 66, 178),
    "orange": (235, 128, 38),
    "cyan": (60, 196, 208),
    "pink": (240, 128, 178),
    "white": (238, 238, 232),
}
KEYPOINT_NAMES = ("center", "top", "right", "bottom", "left")
SKELETON = ((1, 2), (1, 3), (1, 4), (1, 5))  # pairs of keypoints, counted from 1 as COCO does


@dataclass(frozen=True)
class ShapeClass:
    """One class. What it leaves open (None) varies from object to object.

    Args:
        name: unique among the classes.
        kind: one of `KINDS`.
        pattern: one of `PATTERNS`.
        colors: names of fill and pattern color; a plain class has one.
    """

    name: str
    kind: str
    pattern: str | None = None
    colors: tuple[str, ...] | None = None


def shape_classes(number: int) -> list[ShapeClass]:
    """The first `number` classes. Up to 12 differ in outline, up to 60 in pattern too, above that in colors too."""
    if not 1 <= number <= MAX_CLASSES:
        raise DataError(f"shapes: num_classes is {number}, expected 1 to {MAX_CLASSES}")
    if number <= len(KINDS):
        return [ShapeClass(kind, kind) for kind in KINDS[:number]]
    if number <= len(KINDS) * len(PATTERNS):
        found = [
            ShapeClass(kind if pattern == "plain" else f"{pattern} {kind}", kind, pattern)
            for pattern in PATTERNS
            for kind in KINDS
        ]
        return found[:number]
    found = [ShapeClass(f"{color} {kind}", kind, "plain", (color,)) for color in COLORS for kind in KINDS]
    found += [
        ShapeClass(f"{fill} and {second} {pattern} {kind}", kind, pattern, (fill, second))
        for fill in COLORS
        for second in COLORS
        if second != fill
        for pattern in PATTERNS[1:]
        for kind in KINDS
    ]
    return found[:number]


MAX_CLASSES = len(KINDS) * len(COLORS) * (1 + (len(PATTERNS) - 1) * (len(COLORS) - 1))


@cache
def outline_of(kind: str) -> tuple[np.ndarray, ...]:
    """The outer polygon (P, 2) of a kind, followed by the polygon of its hole where it has one (a ring)."""
    if kind == "circle":
        return (_round(1.0),)
    if kind == "square":
        return (_regular(4, turn=0.5),)
    if kind == "triangle":
        return (_regular(3) + np.array((0.0, 0.1)),)
    if kind == "star":
        return (_star(points=5, inner=0.44),)
    if kind == "cross":
        a, b = 0.95, 0.31
        corners = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b)]
        return (np.array([*corners, (-b, -b)]),)
    if kind == "heart":
        t = _angles(48)
        x = 16 * np.sin(t) ** 3  # the well-known heart curve, scaled into the unit circle
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return (np.stack((x, y - 2.5), axis=1) / 17.5,)
    if kind == "ring":
        return _round(1.0), _round(0.55)
    if kind == "arrow":
        return (np.array([(0, -1), (0.8, -0.1), (0.32, -0.1), (0.32, 0.9), (-0.32, 0.9), (-0.32, -0.1), (-0.8, -0.1)]),)
    if kind == "hexagon":
        return (_regular(6),)
    if kind == "crescent":
        return (_crescent(),)
    if kind == "diamond":
        return (_regular(4) * np.array((0.62, 1.0)),)
    if kind == "drop":
        t = _angles(40)
        return (np.stack((0.72 * np.sin(t) * np.sin(t / 2) ** 1.2, -np.cos(t)), axis=1),)
    raise ValueError(f"no outline is named {kind!r}; known are {', '.join(KINDS)}")


@cache
def keypoints_of(kind: str) -> np.ndarray:
    """(5, 2): the center, then a point close below the outline straight above, right, below and left of it."""
    outer = outline_of(kind)[0]
    found = [(0.0, 0.0)]
    for direction in ((0, -1), (1, 0), (0, 1), (-1, 0)):
        found.append(tuple(0.85 * _reach(outer, np.array(direction, float)) * np.array(direction)))
    return np.array(found)


def _reach(polygon: np.ndarray, direction: np.ndarray) -> float:
    """How far from the origin the polygon is left for the last time in this direction."""
    side = np.array((-direction[1], direction[0]))
    across, along = polygon @ side, polygon @ direction  # (P,)
    next_across, next_along = np.roll(across, -1), np.roll(along, -1)
    crosses = (across >= 0) != (next_across >= 0)
    share = across[crosses] / (across[crosses] - next_across[crosses])
    return float((along[crosses] + share * (next_along[crosses] - along[crosses])).max(initial=0.0))


def _angles(number: int) -> np.ndarray:
    return np.arange(number) * (2 * np.pi / number)


def _round(radius: float) -> np.ndarray:
    t = _angles(40)
    return radius * np.stack((np.sin(t), -np.cos(t)), axis=1)


def _regular(corners: int, turn: float = 0.0) -> np.ndarray:
    """A regular polygon in the unit circle, first corner on top, turned by `turn` of the angle between corners."""
    t = _angles(corners) + turn * 2 * np.pi / corners
    return np.stack((np.sin(t), -np.cos(t)), axis=1)


def _star(points: int, inner: float) -> np.ndarray:
    star = _regular(2 * points)
    star[1::2] *= inner
    return star


def _crescent() -> np.ndarray:
    """A thick arc that opens to the right; the origin lies inside it."""
    outer = np.pi * np.linspace(0.28, 1.72, 32)  # angles on the unit circle, from tip to tip over the left side
    tip_x, tip_y = np.cos(outer[0]), np.sin(outer[0])
    bite = 0.5  # the inner arc is part of a circle around (bite, 0) through both tips
    first = np.arctan2(tip_y, tip_x - bite)
    inner = np.linspace(2 * np.pi - first, first, 32)[1:-1]
    radius = np.hypot(tip_x - bite, tip_y)
    x = np.concatenate((np.cos(outer), bite + radius * np.cos(inner)))
    y = np.concatenate((np.sin(outer), radius * np.sin(inner)))
    return 0.8 * np.stack((x + 0.45, y), axis=1)
