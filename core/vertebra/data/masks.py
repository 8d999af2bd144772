"""Checks and conversions of COCO segmentations: polygons and run lengths, before and after pycocotools.

pycocotools reads past its buffers on run lengths that do not add up and exhausts the memory on a NaN vertex, so nothing
reaches it from here that was not checked. A polygon is x, y, x, y, ... in pixels; pixel (i, j) covers
[j, j+1) x [i, i+1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vertebra.structures import decode_rle, polygons_to_bitmask

__all__ = ["clip_polygon", "decode_segmentation", "polygon_fault", "rle_counts", "rle_fault", "within_reach"]


def polygon_fault(polygon: Any) -> str | None:
    """What is wrong with one polygon as a flat list of numbers, or None."""
    if not isinstance(polygon, (list, tuple, np.ndarray)):
        return f"is {polygon!r:.60}, not a list of numbers"
    if len(polygon) % 2:
        return f"has {len(polygon)} numbers; x and y must come in pairs"
    if len(polygon) < 6:
        return f"has {len(polygon) // 2} points; a polygon needs at least 3"
    try:
        finite = math.isfinite(sum(polygon))  # NaN and infinity survive a sum
    except (TypeError, OverflowError):
        return "holds something that is not a number"
    return None if finite else "has a coordinate that is not finite (NaN or infinity)"


def rle_fault(rle: Any, height: int, width: int) -> str | None:
    """What is wrong with a COCO run length mask `{"size": [h, w], "counts": ...}` of an h x w image, or None."""
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        return "is neither a list of polygons nor a run length mask with `size` and `counts`"
    if rle["size"] not in ([height, width], (height, width)):
        return f"has size {rle['size']}, its image [{height}, {width}] (height, width)"
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        try:
            runs = rle_counts(counts)
        except ValueError as err:
            return f"is not a compressed run length string: {err}"
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        return "has counts that are neither a string nor a list of whole numbers"
    if min(runs, default=0) < 0:
        return "has a negative run length"
    total = int(sum(runs))
    return None if total == height * width else f"has runs over {total} pixels, its image has {height * width}"


def rle_counts(counts: str | bytes) -> np.ndarray:
    """The run lengths in a compressed COCO string, as int64; the sum is not checked.

    Each run is written in groups of 5 bits, lowest first, as characters from '0' (48) on; bit 5 of a character says
    that more follow, bit 4 of the last is the sign. From the fourth run on, the difference to the run two before is
    written (cocoapi, maskApi.c, rleToString).

    Raises:
        ValueError: a character outside the alphabet, an end inside a run, or a run of more than 6 characters.
    """
    raw = counts.encode("utf-8") if isinstance(counts, str) else counts
    digits = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if not len(digits):
        return digits
    if digits.min() < 0 or digits.max() > 63:
        raise ValueError("it has characters outside the alphabet")
    ends = np.flatnonzero(digits < 32)  # no further group follows
    if not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError("it ends inside a run")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 6:
        raise ValueError("a run is longer than any image")
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << shift, starts)
    runs -= ((digits[ends] & 16) > 0) * (np.int64(1) << (5 * lengths))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode_segmentation(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """A checked segmentation, polygons or run lengths, to a mask (H, W) of uint8 0 and 1."""
    if isinstance(segmentation, dict):
        return decode_rle(segmentation).view(np.uint8)
    return polygons_to_bitmask(within_reach(segmentation, height, width), height, width).view(np.uint8)


def within_reach(polygons: list, height: int, width: int) -> list:
    """The polygons, flat; those that reach further out of the image than its longer side are cut at its border.

    Time and memory of drawing grow with the length of the outline, so a far point would exhaust both. The others are
    left as they are: a cut moves the drawn border by parts of a pixel.
    """
    far = max(height, width)
    if all(-far <= min(polygon) and max(polygon) <= 2 * far for polygon in polygons):
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
