"""Checked COCO segmentations as pixels."""

from __future__ import annotations

import numpy as np

from vertebra.structures import decode_rle, polygons_to_bitmask
from vertebra_eval.masks import within_reach

__all__ = ["decode_segmentation"]


def decode_segmentation(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """A checked segmentation, polygons or run lengths, to a mask (H, W) of uint8 0 and 1."""
    if isinstance(segmentation, dict):
        return decode_rle(segmentation).view(np.uint8)
    return polygons_to_bitmask(within_reach(segmentation, height, width), height, width).view(np.uint8)
