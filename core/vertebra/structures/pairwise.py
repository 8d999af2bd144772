"""Overlaps and distances between two sets of boxes.

Every function takes `Boxes` or tensors (..., N, 4) `xyxy` in pixels; leading dimensions broadcast, so that a
whole padded batch (images, N, 4) takes one call. Coordinates are handled one by one as contiguous (N, M) planes,
which is several times faster on a CPU than (N, M, 2) corner tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vertebra.structures.boxes import Boxes

__all__ = [
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
]


def pairwise_intersection(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Area (..., N, M) that each of N boxes shares with each of M, in square pixels, never negative."""
    a, b = _tensor(boxes1)[..., :, None, :], _tensor(boxes2)[..., None, :, :]
    ax0, ay0, ax1, ay1 = a.unbind(dim=-1)  # (..., N, 1)
    bx0, by0, bx1, by1 = (edge.contiguous() for edge in b.unbind(dim=-1))  # (..., 1, M)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp_(min=0)  # (..., N, M)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp_(min=0)
    return width * height


def pairwise_iou(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Intersection over union (..., N, M), in [0, 1]; 0 where two boxes do not touch, empty boxes included."""
    inter = pairwise_intersection(boxes1, boxes2)
    union = _area(boxes1)[..., :, None] + _area(boxes2)[..., None, :] - inter
    return torch.where(inter > 0, inter / union, 0.0)


def pairwise_ioa(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """Intersection over the area of the second box (..., N, M), in [0, 1]."""
    inter = pairwise_intersection(boxes1, boxes2)
    return torch.where(inter > 0, inter / _area(boxes2)[..., None, :], 0.0)


def matched_pairwise_iou(boxes1: Boxes | Tensor, boxes2: Boxes | Tensor) -> Tensor:
    """IoU (..., N) of the first box with the first, the second with the second, and so on."""
    a, b = _tensor(boxes1), _tensor(boxes2)
    if a.shape[-2] != b.shape[-2]:
        raise ValueError(f"matched_pairwise_iou pairs boxes one to one, got {a.shape[-2]} and {b.shape[-2]} of them")
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = size.prod(dim=-1)
    return torch.where(inter > 0, inter / (_area(a) + _area(b) - inter), 0.0)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes | Tensor) -> Tensor:
    """From each of P points to the four edges of each of N boxes, positive towards the inside.

    Args:
        points: (P, 2), x and y in pixels.
    Returns:
        (P, N, 4): to the left, top, right and bottom edge; a point is inside where all four are positive.
    """
    x, y = points[:, None].unbind(dim=-1)  # (P, 1)
    x0, y0, x1, y1 = _tensor(boxes)[None].unbind(dim=-1)  # (1, N)
    return torch.stack((x - x0, y - y0, x1 - x, y1 - y), dim=-1)


def _tensor(boxes: Boxes | Tensor) -> Tensor:
    return boxes.tensor if isinstance(boxes, Boxes) else boxes


def _area(boxes: Boxes | Tensor) -> Tensor:
    x0, y0, x1, y1 = _tensor(boxes).unbind(dim=-1)
    return (x1 - x0) * (y1 - y0)
