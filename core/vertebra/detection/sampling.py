"""Random choice of a fixed number of labeled candidates, so that background does not drown the objects."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["subsample_labels"]


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draws positive and negative candidates of one image without replacement.

    Positives fill at most their fraction, negatives what is left; too few of them are not made up for by more
    positives. Calls `torch.randperm` for positives, then for negatives, as Detectron2 does: one seed, one choice.

    Args:
        labels: (R,) whole numbers: -1 is never drawn, `bg_label` is negative, all else positive.
        num_samples: number of candidates to draw in all.
        positive_fraction: of `num_samples`, rounded down.
    Returns:
        Indices of the positives and of the negatives, int64, in random order.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero().flatten()
    negative = (labels == bg_label).nonzero().flatten()
    num_positive = min(positive.numel(), int(num_samples * positive_fraction))
    num_negative = min(negative.numel(), num_samples - num_positive)
    chosen_positive = torch.randperm(positive.numel(), device=positive.device)[:num_positive]
    chosen_negative = torch.randperm(negative.numel(), device=negative.device)[:num_negative]
    return positive[chosen_positive], negative[chosen_negative]
