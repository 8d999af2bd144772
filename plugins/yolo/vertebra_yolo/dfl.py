"""Box sides as distributions: the distance to each side is the mean of a softmax over 0, 1, ..., reg_max - 1 cells.

Source: Li et al., "Generalized Focal Loss", arXiv:2006.04388, section 3.2 (distribution focal loss).
Letters: ... any leading dimensions, B bins a side.
"""

import torch
from torch import Tensor

__all__ = ["boxes_from_distances", "distances_from_boxes", "distribution_loss", "expected_distances"]


def expected_distances(logits: Tensor) -> Tensor:
    """(..., 4 * B) to distances (..., 4) to the left, upper, right and lower side, in cells, float32."""
    shares = logits.float().unflatten(-1, (4, -1)).softmax(dim=-1)
    return shares @ torch.arange(shares.shape[-1], dtype=torch.float32, device=logits.device)


def boxes_from_distances(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Distances (..., 4) in cells around points (..., 2) to boxes xyxy (..., 4), all times the strides (..., 1)."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1) * strides


def distances_from_boxes(boxes: Tensor, points: Tensor, num_bins: int) -> Tensor:
    """Boxes xyxy (..., 4) in cells to distances (..., 4), clamped to what the bins can say."""
    distances = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)
    return distances.clamp(0, num_bins - 1 - 0.01)


def distribution_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy with the two bins next to each distance, weighed by nearness (equation 6); mean of the 4 sides.

    Args:
        logits: (P, 4 * B).
        distances: (P, 4) in cells, in [0, B - 1).
    Returns:
        (P,) float32.
    """
    log_shares = logits.float().unflatten(-1, (4, -1)).log_softmax(dim=-1)  # (P, 4, B)
    low = distances.floor()
    share = distances - low  # of the upper bin
    pair = torch.stack((low, low + 1), dim=-1).long()  # (P, 4, 2)
    weight = torch.stack((1 - share, share), dim=-1)
    return -(log_shares.gather(-1, pair) * weight).sum(dim=-1).mean(dim=-1)
