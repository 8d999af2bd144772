"""Task-aligned assignment: each object takes the cells that classify and locate it best together.

Source: Feng et al., "TOOD: Task-aligned One-stage Object Detection", arXiv:2108.07755, section 3.2. With `topk` 1 it is
the one-to-one matching of Wang et al., "YOLOv10", arXiv:2405.14458, section 3.1, consistent with one-to-many by sharing
alpha and beta.
Letters: N images, M objects in the fullest image, R cells over all levels, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vertebra.structures import pairwise_iou

__all__ = ["AlignedMatches", "match_aligned"]


class AlignedMatches(NamedTuple):
    """For each of R cells of N images."""

    object: Tensor
    """(N, R) int64: row of the ground truth, -1 for background."""
    target: Tensor
    """(N, R) float32: the class score to learn, the alignment scaled so that an object's best cell gets its best IoU; 0
    for background."""


@torch.no_grad()
def match_aligned(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    truth: Tensor,
    classes: Tensor,
    valid: Tensor,
    *,
    topk: int,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> AlignedMatches:
    """All images at once, without a wait for the device.

    An object's candidates are the cells whose centers lie in its box; an object so small that none does takes the cell
    whose center is nearest, so that it is learned at all. Of several objects that want a cell the one with the greatest
    IoU gets it.

    Args:
        logits: (N, R, K) class scores before the sigmoid.
        boxes: (N, R, 4) predicted, xyxy in input pixels.
        points: (R, 2) centers of the cells in input pixels.
        truth: (N, M, 4) xyxy; classes: (N, M) int64; valid: (N, M) bool.
        topk: cells an object may take.
        alpha, beta: powers of score and IoU in the alignment.
    """
    inside = _candidates(points, truth) & valid[..., None]  # (N, M, R)
    iou = pairwise_iou(truth, boxes.float())  # (N, M, R)
    index = classes[..., None].expand(-1, -1, points.shape[0])
    score = logits.transpose(1, 2).gather(1, index).float().sigmoid()  # (N, M, R)
    alignment = torch.where(inside, (score.pow(alpha) * iou.pow(beta)).clamp(min=1e-30), 0.0)
    best = alignment.topk(min(topk, points.shape[0]), dim=2)
    taken = torch.zeros_like(inside).scatter_(2, best.indices, best.values > 0)
    claim, winner = torch.where(taken, iou, -1.0).max(dim=1)  # (N, R)
    found = claim >= 0
    taken &= winner[:, None] == torch.arange(truth.shape[1], device=truth.device)[:, None]
    strongest = (alignment * taken).amax(dim=2, keepdim=True).clamp(min=1e-30)  # (N, M, 1)
    highest = (iou * taken).amax(dim=2, keepdim=True)
    scaled = alignment / strongest * highest  # (N, M, R)
    target = torch.where(found, scaled.gather(1, winner[:, None])[:, 0], 0.0)
    return AlignedMatches(torch.where(found, winner, -1), target)


def _candidates(points: Tensor, truth: Tensor) -> Tensor:
    """Which points (R, 2) lie in which boxes (N, M, 4), or are nearest to one without any: (N, M, R) bool."""
    x, y = points.unbind(dim=-1)  # (R,)
    x0, y0, x1, y1 = (edge[..., None] for edge in truth.unbind(dim=-1))  # (N, M, 1)
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    away = (x - (x0 + x1) / 2).abs() + (y - (y0 + y1) / 2).abs()  # (N, M, R)
    nearest = torch.zeros_like(inside).scatter_(2, away.argmin(dim=2, keepdim=True), True)
    return inside | (nearest & ~inside.any(dim=2, keepdim=True))
