"""Polygons of COCO segmentations: what may be wrong with them, and how far ones are cut.

A polygon is x, y, x, y, ... in pixels; pixel (i, j) covers [j, j+1) x [i, i+1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

__all__ = ["FARTHEST", "clip_polygon", "polygon_fault", "polygons_cause", "within_reach"]

FARTHEST = 1e5
"""Pixels from the origin beyond which a polygon is cut at its image's border: pycocotools walks along every edge, so
its time and memory grow with the outline."""


def polygon_fault(polygon: Any) -> str | None:
    """What is wrong with one polygon as a flat list of numbers, or None; here, less than 3 points pass."""
    if not isinstance(polygon, (list, tuple, np.ndarray)):
        return f"is {polygon!r:.60}, not a list of numbers"
    if len(polygon) % 2:
        return f"has {len(polygon)} numbers; x and y must come in pairs"
    if any(isinstance(value, bool) or not isinstance(value, Real) for value in polygon):
        return "holds something that is not a number"
    try:
        finite = math.isfinite(sum(map(float, polygon)))  # NaN and infinity survive a sum
    except OverflowError:  # a whole number beyond any float
        finite = False
    return None if finite else "has a coordinate that is not finite (NaN or infinity)"


def polygons_cause(segmentation: Any) -> str | None:
    """What is wrong with a list that is nearly one of polygons as COCO writes them; None: nothing that is known."""
    if isinstance(segmentation, np.ndarray):
        segmentation = segmentation.tolist()
    if not isinstance(segmentation, (list, tuple)) or not segmentation:
        return None
    if all(isinstance(value, Real) for value in segmentation):
        return "is one flat list of numbers; a pair of brackets is missing: [[x1, y1, x2, y2, ...]]"
    points = segmentation
    if all(isinstance(one, (list, tuple)) and one and not isinstance(one[0], Real) for one in segmentation):
        points = [point for polygon in segmentation for point in polygon]
    pairs = len(points) > 2 and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in points)
    if pairs or all(isinstance(one, dict) for one in points):
        return "is a list of points; write each polygon as one list of numbers: [[x1, y1, x2, y2, ...]]"
    return None


def within_reach(polygons: Sequence[Any], height: int, width: int) -> Sequence[Any]:
    """The polygons, flat; those that reach beyond `FARTHEST` are cut at the image's border.

    The others are left as they are: a cut moves the drawn border by parts of a pixel.
    """
    if all(min(polygon) >= -FARTHEST and max(polygon) <= FARTHEST for polygon in polygons):
        return polygons
    cut = [clip_polygon(np.array(polygon, float).reshape(-1, 2), width, height) for polygon in polygons]
    return [polygon.reshape(-1).tolist() for polygon in cut if len(polygon)]


def clip_polygon(points: np.ndarray, width: float, height: float) -> np.ndarray:
    """Cut a polygon (P, 2) to the rectangle [0, width] x [0, height]; (0, 2) if nothing is left.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping", CACM 17 (1974). A concave polygon that falls apart
    stays one polygon whose parts are joined by edges along the border: they enclose no area.
    """
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    bounds = ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1))
    if (low >= 0).all() and high[0] <= width and high[1] <= height:
        return points
    for axis, bound, sign in bounds:
        if not len(points):
            break
        depth = sign * (points[:, axis] - bound)  # >= 0 inside
        inside = depth >= 0
        if inside.all():
            continue
        following, next_inside = np.roll(points, -1, axis=0), np.roll(inside, -1)
        crossing = inside != next_inside
        drop = np.where(crossing, depth - np.roll(depth, -1), 1.0)
        crossed = points + (following - points) * (depth / drop)[:, None]
        crossed[:, axis] = bound  # exactly, whatever the rounding
        # each edge gives its start if that is inside, then its crossing if it has one
        pairs = np.stack((points, crossed), axis=1)  # (P, 2 candidates, 2)
        points = pairs[np.stack((inside, crossing), axis=1)]
    return points if len(points) >= 3 else points[:0]
