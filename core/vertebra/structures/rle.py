"""Masks as run lengths (COCO RLE) and polygons as masks, through pycocotools.

A COCO segmentation is one of three: a list of polygons (flat lists x0, y0, x1, y1, ...), an uncompressed RLE
(`counts` is a list of numbers), or a compressed RLE (`counts` is text).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from vertebra_eval.masks import FARTHEST, run_length_fault

__all__ = ["decode_rle", "encode_masks", "encode_window", "polygons_to_bitmask", "segmentation_to_bitmask"]


def polygons_to_bitmask(polygons: Sequence[np.ndarray | Sequence[float]], height: int, width: int) -> np.ndarray:
    """(height, width) bool: the union of the polygons, as COCO's own tools draw them.

    Args:
        polygons: flat lists x0, y0, x1, y1, ... in pixels; none of them gives an empty mask.
    Raises:
        ValueError: a polygon that is not a list of 3 or more x, y pairs, or reaches absurdly far.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    flat = []
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64).ravel()
        if len(points) < 6 or len(points) % 2:  # pycocotools would take 4 numbers for a box
            raise ValueError(f"a polygon has {len(points)} numbers, must be x, y pairs, 3 or more")
        if not np.abs(points).max() <= FARTHEST:  # it would fill the memory with the outline, or crash; NaN too
            raise ValueError(f"a polygon has a coordinate that is not finite or beyond {FARTHEST:g} pixels")
        flat.append(points.tolist())
    rle = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return coco_mask.decode(rle).astype(bool)


def encode_masks(masks: Tensor | np.ndarray) -> list[dict[str, Any]]:
    """Compressed COCO RLEs that go into JSON as they are: {"size": [height, width], "counts": text}.

    Args:
        masks: (N, H, W), bool or 0 and 1.
    """
    array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
    if array.ndim != 3:
        raise ValueError(f"encode_masks takes masks (N, H, W), got shape {array.shape}")
    if len(array) == 0:
        return []
    columns = np.asfortranarray(array.astype(np.uint8).transpose(1, 2, 0))  # (H, W, N), pycocotools' layout
    rles = coco_mask.encode(columns)
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in rles]


def encode_window(window: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """The compressed COCO RLE of a mask that is empty outside a window; the whole mask is never made.

    Args:
        window: (h, w) bool.
        corner: x and y of its upper left pixel in the image.
        size: (height, width) of the image; the window lies in it.
    """
    height, width = size
    (x0, y0), (h, w) = corner, window.shape
    if min(x0, y0) < 0 or x0 + w > width or y0 + h > height:
        raise ValueError(
            f"a window of {h} x {w} pixels at x {x0}, y {y0} does not lie in an image of {height} x {width}"
        )
    edges = np.zeros((w, h + 1), dtype=np.int8)  # column after column, as COCO counts; the last one is outside
    edges[:, :h] = window.T
    edges[:, 1:] -= edges[:, :-1].copy()  # 1 where a run starts, -1 where it has ended
    column, row = np.nonzero(edges)
    places = (column + x0).astype(np.int64) * height + row + y0  # of starts and ends in turn
    places = places.reshape(-1, 2)
    if h == height and len(places):  # a run that reaches the bottom goes on at the top of the next column
        apart = np.append(True, places[1:, 0] != places[:-1, 1])
        places = np.stack((places[apart, 0], places[np.append(apart[1:], True), 1]), axis=1)
    counts = np.diff(places.ravel(), prepend=0, append=height * width).tolist()
    if counts[-1] == 0:  # the mask's last pixel is set: COCO writes no empty run after it
        counts.pop()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """(H, W) bool from one COCO RLE, compressed (text or bytes) or not (numbers).

    Raises:
        ValueError: it is not an RLE, or the runs do not add up to the size.
    """
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise ValueError(f"an RLE is a dict with `size` and `counts`, got {_short(rle)}")
    size, counts = rle["size"], rle["counts"]
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and _are_counts(size)):
        raise ValueError(f"an RLE's size is [height, width], got {_short(size)}")
    height, width = size
    if height * width >= 2**32:
        raise ValueError(f"an RLE of {height} x {width} pixels is more than COCO's format can hold (2**32)")
    if isinstance(counts, (list, tuple)):
        if not _are_counts(counts) or sum(counts) != height * width:
            raise ValueError(
                f"uncompressed RLE: counts must be whole numbers that add up to its size, {height} x {width} ="
                f" {height * width} pixels, got {_short(counts)}"
            )
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
        return coco_mask.decode(rle).astype(bool)
    if not isinstance(counts, (str, bytes)):
        raise ValueError(f"an RLE's counts are text or a list of numbers, got {_short(counts)}")
    if fault := run_length_fault(rle, None):  # pycocotools would read or write beyond its memory
        raise ValueError(f"compressed RLE {fault}")
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    return coco_mask.decode({"size": [height, width], "counts": text}).astype(bool)


def segmentation_to_bitmask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """(height, width) bool from any COCO segmentation (polygons or RLE) or a mask array.

    Raises:
        ValueError: what is given is not one of these, or a mask of another size.
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
    elif isinstance(segmentation, (list, tuple)):
        return polygons_to_bitmask(segmentation, height, width)
    elif isinstance(segmentation, (np.ndarray, Tensor)) and segmentation.ndim == 2:
        mask = torch.as_tensor(segmentation).cpu().numpy().astype(bool)
    else:
        raise ValueError(
            f"a segmentation is a list of polygons, an RLE dict or a mask (H, W), got {_short(segmentation)}"
        )
    if mask.shape != (height, width):
        raise ValueError(f"a mask of size {mask.shape[0]} x {mask.shape[1]} in an image of {height} x {width}")
    return mask


def _are_counts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, np.integer)) and value >= 0 for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
