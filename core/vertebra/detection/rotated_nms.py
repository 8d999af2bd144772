"""Non-maximum suppression of rotated boxes, by their exact IoU. Names and meaning are Detectron2's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vertebra.structures import RotatedBoxes, matched_rotated_iou

__all__ = ["batched_nms_rotated", "nms_rotated"]

_ROWS = 512  # boxes that are compared with all others at once


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes to keep, by falling score.

    Args:
        boxes: (R, 5) center x, center y, width, height in pixels, angle in degrees counterclockwise.
        scores: (R,).
        iou_threshold: a box goes if its IoU with a better one that stays is more than this.
    """
    return batched_nms_rotated(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`nms_rotated` within groups: boxes of different groups never suppress each other.

    Args:
        idxs: (R,) int64, the group of each box.
    """
    order = scores.float().sort(descending=True, stable=True)[1]
    better, worse = _overlapping(boxes[order], idxs[order], iou_threshold)
    ends = np.searchsorted(better, np.arange(len(order) + 1))
    keep = np.ones(len(order), bool)
    for row in np.unique(better):  # only these can suppress any
        if keep[row]:
            keep[worse[ends[row] : ends[row + 1]]] = False
    return order[torch.from_numpy(keep).to(order.device)]


def _overlapping(boxes: Tensor, groups: Tensor, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (i, j), i < j, of one group whose IoU is more than the threshold, in the order of i."""
    corners = RotatedBoxes(boxes).corners()
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    columns = torch.arange(len(boxes), device=boxes.device)
    found: list[Tensor] = []
    for start in range(0, len(boxes), _ROWS):
        rows = columns[start : start + _ROWS, None]
        meet = (rows < columns) & (groups[start : start + _ROWS, None] == groups)
        for axis in (0, 1):
            meet &= low[start : start + _ROWS, None, axis] < high[:, axis]
            meet &= low[:, axis] < high[start : start + _ROWS, None, axis]
        first, second = meet.nonzero(as_tuple=True)
        first = first + start
        found.append(torch.stack((first, second))[:, matched_rotated_iou(boxes[first], boxes[second]) > iou_threshold])
    pairs = torch.cat(found, dim=1).cpu().numpy() if found else np.zeros((2, 0), np.int64)
    return pairs[0], pairs[1]
