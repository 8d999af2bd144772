"""Non-maximum suppression of rotated boxes, by their exact IoU. Names and meaning are Detectron2's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vertebra.structures import matched_rotated_iou
from vertebra.structures.rotated_boxes import corners_of

__all__ = ["batched_nms_rotated", "nms_rotated"]

_AT_ONCE = 128  # boxes that are compared with all worse ones


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
    sorted_boxes, groups = boxes[order].double(), idxs[order]
    corners = corners_of(sorted_boxes)
    low, high, area = corners.amin(dim=1), corners.amax(dim=1), sorted_boxes[:, 2] * sorted_boxes[:, 3]
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(order), _AT_ONCE):
        rows = start + alive[start : start + _AT_ONCE].nonzero()[:, 0]  # that no better one has suppressed
        columns = start + alive[start:].nonzero()[:, 0]
        # An IoU is at most the ratio of the areas, and that of the overlap of the upright boxes around them.
        sides = torch.minimum(high[rows, None], high[columns]) - torch.maximum(low[rows, None], low[columns])
        most = torch.minimum(torch.minimum(area[rows, None], area[columns]), sides.clamp(min=0).prod(dim=2))
        bound = most / (area[rows, None] + area[columns] - most).clamp(min=1e-300)
        close = (
            (rows[:, None] < columns)
            & (groups[rows, None] == groups[columns])
            & (bound > 0)
            & (bound >= iou_threshold - 1e-6)
        )
        first, second = close.nonzero(as_tuple=True)
        over = matched_rotated_iou(sorted_boxes[rows[first]], sorted_boxes[columns[second]]) > iou_threshold
        _suppress(alive, rows[first[over]], columns[second[over]])
    return order[alive]


def _suppress(alive: Tensor, better: Tensor, worse: Tensor) -> None:
    """Takes out those of `worse` whose better one stays. Pairs come in the order of the better ones."""
    keep, first, second = alive.cpu().numpy(), better.cpu().numpy(), worse.cpu().numpy()
    rows, starts = np.unique(first, return_index=True)
    for row, others in zip(rows, np.split(second, starts[1:]), strict=True) if len(rows) else ():
        if keep[row]:
            keep[others] = False
    alive.copy_(torch.from_numpy(keep))
