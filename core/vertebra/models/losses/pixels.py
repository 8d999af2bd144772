"""Losses of each pixel's class scores: hard pixels only, focal, and one class against the rest.

All compute in float32, leave ignored pixels out, and are a differentiable 0 where all are ignored.
Letters: N images, K classes, H x W pixels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.models.contracts import Loss
from vertebra.models.losses.pixel_labels import check_pixels, known_pixels, one_hot, weights_of

__all__ = ["HardPixelCrossEntropy", "PixelBCE", "PixelFocalLoss", "pixel_entropy"]


class HardPixelCrossEntropy(Loss):
    """Mean cross entropy of the pixels of the batch that cost most, without the others.

    Source: Yang et al., "DeeperLab", arXiv:1902.05093, section 3.5, as in Detectron2's DeepLab: the share is of all
    pixels of the batch, ignored ones among them, which cost 0.

    Args:
        top_k: share of the pixels that count, above 0 and up to 1. At 1 the mean is over all pixels, ignored ones too.
        class_weights: K factors of the pixels' losses; None: all 1.
        ignore_index: label without loss.
    """

    min_classes: ClassVar[int] = 2
    class_weights: Tensor | None

    def __init__(self, top_k: float = 0.2, class_weights: list[float] | None = None, ignore_index: int = 255) -> None:
        super().__init__()
        if not 0 < top_k <= 1:
            raise ValueError(f"HardPixelCrossEntropy: top_k is {top_k}; it is a share above 0 and up to 1")
        self.top_k = top_k
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        losses = pixel_entropy(logits, labels, self.ignore_index, self.class_weights).flatten()
        if losses.numel() == 0:
            return losses.sum()
        count = max(1, int(self.top_k * losses.numel()))
        if count < losses.numel():
            losses = losses.topk(count, sorted=False).values
        return losses.mean()


class PixelFocalLoss(Loss):
    """-alpha_t (1 - p_t)^gamma log p_t of the softmax, p_t being the probability of the pixel's own class.

    Source: Lin et al., "Focal Loss", arXiv:1708.02002, equation 5, with a softmax in place of its sigmoid.
    The mean is over the pixels that count, whatever their weights.

    Args:
        gamma: how strongly easy pixels are played down; 0 gives the cross entropy.
        class_weights: the K alphas; None: all 1.
        ignore_index: label without loss.
    """

    min_classes: ClassVar[int] = 2
    class_weights: Tensor | None

    def __init__(self, gamma: float = 2.0, class_weights: list[float] | None = None, ignore_index: int = 255) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"PixelFocalLoss: gamma is {gamma}; it must be at least 0")
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        entropy = pixel_entropy(logits, labels, self.ignore_index)  # -log p_t, 0 where ignored
        miss = -torch.expm1(-entropy)  # 1 - p_t, without losing it where p_t is close to 1
        losses = miss.clamp(min=1e-12).pow(self.gamma) * entropy  # the root of 0 has no slope for gamma below 1
        targets, known = known_pixels(labels, self.ignore_index)
        if self.class_weights is not None:
            losses = losses * self.class_weights[targets]
        return losses.sum() / known.sum().clamp(min=1)


class PixelBCE(Loss):
    """Sigmoid cross entropy of every class against the rest, the mean over classes and pixels that count.

    Args:
        pos_weight: factor of the positive term; above 1 it favors recall.
        class_weights: K factors of the classes' losses; None: all 1.
        ignore_index: label without loss.
    """

    class_weights: Tensor | None

    def __init__(
        self, pos_weight: float = 1.0, class_weights: list[float] | None = None, ignore_index: int = 255
    ) -> None:
        super().__init__()
        if pos_weight <= 0:
            raise ValueError(f"PixelBCE: pos_weight is {pos_weight}; it must be above 0")
        self.pos_weight = pos_weight
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        num_classes, x = logits.shape[1], logits.float()
        target = one_hot(labels, num_classes)
        losses = F.softplus(x.where(~target, -x))  # -log sigmoid(x) where it is the class, -log(1 - sigmoid(x)) else
        if self.pos_weight != 1:
            losses = losses * (1 + (self.pos_weight - 1) * target)
        if self.class_weights is not None:
            losses = losses * self.class_weights.view(1, -1, 1, 1)
        known = labels != self.ignore_index
        return (losses * known[:, None]).sum() / (known.sum() * num_classes).clamp(min=1)


def pixel_entropy(logits: Tensor, labels: Tensor, ignore_index: int, class_weights: Tensor | None = None) -> Tensor:
    """Softmax cross entropy (N, H, W) float32 of each pixel, 0 where it is ignored."""
    return F.cross_entropy(logits.float(), labels, class_weights, ignore_index=ignore_index, reduction="none")
