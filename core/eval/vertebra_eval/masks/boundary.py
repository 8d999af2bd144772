"""The boundary of masks: their pixels near the contour, for boundary IoU of instances.

Source: Cheng et al., "Boundary IoU", arXiv:2103.16562, section 5: pixels of a mask within a distance d of its contour,
d being 2 % of the image's diagonal. Like the authors' tool, d is rounded, at least 1, distances are those of a 3 x 3
erosion, and a contour runs along the image's border too.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from vertebra_eval.masks.column import MaskColumn

__all__ = ["boundary_column", "boundary_of"]

RATIO = 0.02
"""Distance from the contour, as a part of the image's diagonal."""


def boundary_column(masks: MaskColumn, ratio: float = RATIO) -> MaskColumn:
    """The boundary of each mask, as run lengths; none where there is no mask."""
    encoded = []
    for row in range(len(masks)):
        mask = masks[row]
        if mask is None:
            encoded.append({"size": masks.sizes[row].tolist(), "counts": b""})
            continue
        height, width = mask["size"]
        distance = max(1, round(ratio * float(np.hypot(height, width))))
        x, y, w, h = (int(value) for value in coco_mask.toBbox(mask))
        pixels = coco_mask.decode(mask)
        pixels[y : y + h, x : x + w] = boundary_of(pixels[y : y + h, x : x + w], distance)
        encoded.append(coco_mask.encode(pixels))
    column = MaskColumn.of_encoded(encoded)
    column.kinds[masks.kinds == 0] = 0
    return column


def boundary_of(mask: np.ndarray, distance: int) -> np.ndarray:
    """(H, W) uint8: pixels of a mask with one outside it, or outside the array, within `distance` rows and columns.

    Args:
        mask: (H, W) of 0 and 1.
    """
    side = 2 * distance + 1
    sums = np.pad(mask.astype(np.int64), ((distance + 1, distance), (distance + 1, distance))).cumsum(0).cumsum(1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (mask.astype(bool) & (inside < side * side)).astype(np.uint8)
