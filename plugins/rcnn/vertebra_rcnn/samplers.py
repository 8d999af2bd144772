"""Which candidates a training step uses: a number per image, objects up to a share, background for the rest.

Source: Girshick, "Fast R-CNN", arXiv:1504.08083, section 2.3.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vertebra.detection import BACKGROUND, subsample_labels
from vertebra.structures import pad_rows

__all__ = ["OrderedSampler", "RandomSampler", "Sampled", "Sampler"]


class Sampled(NamedTuple):
    """Chosen candidates, for each image as many rows, those with an object first; what is not valid only fills up."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks of it
    """(N, S) int64, which candidate."""
    positive: Tensor
    """(N, S) bool: valid, and matched with a ground-truth box."""
    valid: Tensor
    """(N, S) bool."""


class Sampler:
    """Draws candidates of all images without replacement.

    Args:
        num_samples: maximum number per image.
        positive_fraction: share of them that may hold an object; what is left is background. Too little background is
            not made up for by more objects.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(self, num_samples: int, positive_fraction: float) -> None:
        if num_samples < 1 or not 0 < positive_fraction <= 1:
            raise ValueError(
                f"{type(self).__name__}: num_samples is {num_samples}, must be at least 1; positive_fraction "
                f"is {positive_fraction}, must be above 0 and at most 1"
            )
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction

    def __call__(self, matched: Tensor) -> Sampled:
        """(N, R) as `Matcher.match_boxes` gives it: a row of the truth, BACKGROUND or IGNORE."""
        raise NotImplementedError


class RandomSampler(Sampler):
    """All images at once: every candidate gets a random number, and the greatest of each sort are taken."""

    def __init__(self, num_samples: int = 256, positive_fraction: float = 0.5) -> None:
        super().__init__(num_samples, positive_fraction)

    @torch.no_grad()
    def __call__(self, matched: Tensor) -> Sampled:
        num_candidates = matched.shape[1]
        most = min(self.num_samples, num_candidates)
        lots = torch.rand(matched.shape, device=matched.device)  # at least 0, so -1 never wins over one of them
        most_positive = min(int(self.num_samples * self.positive_fraction), num_candidates)
        lot, positive_index = lots.masked_fill(matched < 0, -1).topk(most_positive, dim=1)
        positive = lot >= 0
        lot, negative_index = lots.masked_fill(matched != BACKGROUND, -1).topk(most, dim=1)
        room = self.num_samples - positive.sum(dim=1, keepdim=True)  # (N, 1)
        negative = (lot >= 0) & (torch.arange(most, device=matched.device) < room)
        return Sampled(
            index=torch.cat((positive_index, negative_index), dim=1),
            positive=torch.cat((positive, torch.zeros_like(negative)), dim=1),
            valid=torch.cat((positive, negative), dim=1),
        )


class OrderedSampler(Sampler):
    """Detectron2's draws: `torch.randperm` image by image, objects before background. One seed, one choice.

    For comparing a training with Detectron2's step by step; the random numbers are drawn in a loop over the images.
    """

    def __init__(self, num_samples: int = 256, positive_fraction: float = 0.5) -> None:
        super().__init__(num_samples, positive_fraction)

    @torch.no_grad()
    def __call__(self, matched: Tensor) -> Sampled:
        labels = torch.where(matched >= 0, 1, torch.where(matched == BACKGROUND, 0, -1))
        drawn = [subsample_labels(one, self.num_samples, self.positive_fraction, bg_label=0) for one in labels]
        index, valid = pad_rows([torch.cat(pair) for pair in drawn])
        return Sampled(index, valid & (labels.gather(1, index) == 1), valid)
