"""The classes of the generated dataset `shapes`: outlines with keypoints, and the colors to paint them in.

An outline lies in its own frame: the origin is the object's center, y points down, and all points are within
distance 1 of the center (1.35 for the corners of the longest).
"""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["COLORS", "KEYPOINT_NAMES", "KINDS", "OUTLINES", "SKELETON", "keypoints_of"]

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


def _regular(corners: int, turn: float = 0.0, inner: float = 1.0) -> np.ndarray:
    """A regular polygon (P, 2) in the unit circle, first corner on top, turned by `turn` of the angle between corners.

    Every second corner is drawn in to the radius `inner`.
    """
    t = np.arange(corners) * (2 * np.pi / corners) + turn * 2 * np.pi / corners
    points = np.stack((np.sin(t), -np.cos(t)), axis=1)
    points[1::2] *= inner
    return points


def _cross(a: float = 0.95, b: float = 0.31) -> np.ndarray:
    right = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b)]
    return np.array([*right, (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)])


def _heart() -> np.ndarray:
    """The well-known heart curve, scaled into the unit circle."""
    t = np.arange(48) * (2 * np.pi / 48)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack((16 * np.sin(t) ** 3, y - 2.5), axis=1) / 17.5


OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "circle": (_regular(40),),
    "square": (_regular(4, turn=0.5),),
    "triangle": (_regular(3) + np.array((0.0, 0.1)),),
    "star": (_regular(10, inner=0.44),),
    "cross": (_cross(),),
    "heart": (_heart(),),
    "ring": (_regular(40), 0.55 * _regular(40)),
}
"""The outer polygon (P, 2) of each class, followed by the polygon of its hole where it has one."""

KINDS = tuple(OUTLINES)


@cache
def keypoints_of(kind: str) -> np.ndarray:
    """(5, 2): the center, then a point close below the outline straight above, right, below and left of it."""
    outer = OUTLINES[kind][0]
    directions = np.array(((0, -1), (1, 0), (0, 1), (-1, 0)), float)
    return np.array([(0.0, 0.0), *(0.85 * _reach(outer, direction) * direction for direction in directions)])


def _reach(polygon: np.ndarray, direction: np.ndarray) -> float:
    """How far from the origin the polygon is left for the last time in this direction."""
    side = np.array((-direction[1], direction[0]))
    across, along = polygon @ side, polygon @ direction  # (P,)
    next_across, next_along = np.roll(across, -1), np.roll(along, -1)
    crosses = (across >= 0) != (next_across >= 0)
    share = across[crosses] / (across[crosses] - next_across[crosses])
    return float((along[crosses] + share * (next_along[crosses] - along[crosses])).max(initial=0.0))
