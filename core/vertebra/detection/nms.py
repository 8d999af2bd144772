"""Non-maximum suppression within groups (classes, levels, images)."""

from __future__ import annotations

from torch import Tensor
from torchvision import ops

__all__ = ["batched_nms"]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes to keep, by falling score; boxes of different groups never suppress each other.

    Args:
        boxes: (R, 4) `xyxy` in any floating type; compared in float32, since 16 bits are too few.
        scores: (R,).
        idxs: (R,) int64, the group of each box.
        iou_threshold: a box goes if its IoU with a better one of its group is more than this.
    """
    return ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)
