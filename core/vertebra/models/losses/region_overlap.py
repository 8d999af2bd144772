"""Losses of the overlap of whole regions: Dice, Jaccard, Tversky, and the Lovasz extension of Jaccard.

All compare softmax probabilities p with one-hot labels y, class by class over all pixels that count, in float32.
Letters: N images, K classes, H x W pixels, P pixels over all that are compared together.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vertebra.models.contracts import Loss
from vertebra.models.losses.pixel_labels import check_pixels, one_hot

__all__ = ["DiceLoss", "JaccardLoss", "LovaszSoftmax", "TverskyLoss"]


class _OverlapLoss(Loss):
    """One minus the mean overlap of the classes: all that these losses share. A subclass says what the overlap is."""

    min_classes: ClassVar[int] = 2

    def __init__(self, eps: float, per_image: bool, present_only: bool, ignore_index: int) -> None:
        super().__init__()
        if eps < 0 or (eps == 0 and not present_only):
            raise ValueError(
                f"{type(self).__name__}: eps is {eps}; it must be at least 0, and above 0 where absent classes count"
            )
        self.eps = eps
        self.per_image = per_image
        self.present_only = present_only
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        p, y = compared(logits, labels, self.ignore_index)
        over = (2, 3) if self.per_image else (0, 2, 3)
        return mean_of_classes(1 - self._overlap(p, y, over), y.sum(over), self.present_only)

    def _overlap(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        """Of probabilities and truth (N, K, H, W), 0 where ignored, summed over the named dimensions.

        Returns:
            (K,) or (N, K), 1 for a perfect one.
        """
        raise NotImplementedError


class DiceLoss(_OverlapLoss):
    """1 - 2 |p y| / (|p| + |y|), the mean over the classes. In [0, 1], 0 for a perfect overlap.

    Sources: Milletari et al., "V-Net", arXiv:1606.04797, section 3 (squared, one foreground class);
    Drozdzal et al., arXiv:1608.04117 (plain).

    Args:
        squared: sums of squares in the denominator, 1 - 2 sum(y p) / (sum(y^2) + sum(p^2)), not plain sums.
        eps: added to numerator and denominator, in pixels.
        per_image, present_only, ignore_index: see `JaccardLoss`.
    """

    def __init__(
        self,
        squared: bool = False,
        eps: float = 1.0,
        per_image: bool = False,
        present_only: bool = True,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(eps, per_image, present_only, ignore_index)
        self.squared = squared

    def _overlap(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        both = (p * y).sum(over)
        total = ((p * p).sum(over) if self.squared else p.sum(over)) + y.sum(over)  # y^2 is y
        return (2 * both + self.eps) / (total + self.eps)


class JaccardLoss(_OverlapLoss):
    """1 - |p y| / (|p| + |y| - |p y|): one minus the soft intersection over union, the mean over the classes.

    Source: Rahman & Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks", ISVC 2016, equations 3 to 5.

    Args:
        eps: added to numerator and denominator, in pixels.
        per_image: overlaps of each image, then their mean; otherwise those of the batch as one picture.
        present_only: the mean is over the classes that occur in the labels (of the image, where per image). Otherwise
            over all: a class that does not occur then costs, the more of it is predicted.
        ignore_index: label without loss.
    """

    def __init__(
        self, eps: float = 1.0, per_image: bool = False, present_only: bool = True, ignore_index: int = 255
    ) -> None:
        super().__init__(eps, per_image, present_only, ignore_index)

    def _overlap(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        both = (p * y).sum(over)
        return (both + self.eps) / (p.sum(over) + y.sum(over) - both + self.eps)


class TverskyLoss(_OverlapLoss):
    """1 - TP / (TP + alpha FP + beta FN), soft, the mean over the classes.

    Source: Salehi et al., "Tversky loss function", arXiv:1706.05721, equations 3 and 4; its best was alpha 0.3, beta
    0.7. Both 1/2: Dice; both 1: Jaccard.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; above alpha it favors recall.
        eps: added to numerator and denominator, in pixels.
        per_image, present_only, ignore_index: see `JaccardLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        eps: float = 1.0,
        per_image: bool = False,
        present_only: bool = True,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(eps, per_image, present_only, ignore_index)
        if min(alpha, beta) < 0 or alpha == beta == 0:
            raise ValueError(f"TverskyLoss: alpha {alpha} and beta {beta} must be at least 0, and not both 0")
        self.alpha = alpha
        self.beta = beta

    def _overlap(self, p: Tensor, y: Tensor, over: tuple[int, ...]) -> Tensor:
        both = (p * y).sum(over)
        wrong = self.alpha * (p.sum(over) - both) + self.beta * (y.sum(over) - both)
        return (both + self.eps) / (both + wrong + self.eps)


class LovaszSoftmax(Loss):
    """The Lovasz extension of one minus the intersection over union, on softmax probabilities.

    Source: Berman et al., "The Lovasz-Softmax loss", arXiv:1705.08790, equations 8, 9 and 11, algorithm 1.
    Sorts the P errors of each class: O(K P log P).

    Args:
        per_image: of each image, then their mean; otherwise of the batch as one picture.
        present_only: the mean is over the classes that occur in the labels; otherwise over all.
        ignore_index: label without loss.
    """

    min_classes: ClassVar[int] = 2

    def __init__(self, per_image: bool = False, present_only: bool = True, ignore_index: int = 255) -> None:
        super().__init__()
        self.per_image = per_image
        self.present_only = present_only
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        if logits.numel() == 0:
            return logits.float().sum()
        p, y = compared(logits, labels, self.ignore_index)
        errors = (y - p).abs()  # 0 where ignored: sorted to the end, where it costs nothing
        if self.per_image:
            errors, truth = errors.flatten(2), y.flatten(2)  # (N, K, P)
        else:
            errors, truth = (x.transpose(0, 1).flatten(1) for x in (errors, y))  # (K, P)
        errors, order = errors.sort(dim=-1, descending=True)
        slope = _jaccard_slope(truth.gather(-1, order))
        return mean_of_classes((errors * slope).sum(-1), truth.sum(-1), self.present_only)


def compared(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Softmax probabilities and one-hot labels, float32 (N, K, H, W), both 0 where a pixel is ignored."""
    known = labels != ignore_index
    p = logits.float().softmax(dim=1) * known[:, None]
    return p, one_hot(labels, logits.shape[1]).float()


def mean_of_classes(losses: Tensor, pixels: Tensor, present_only: bool) -> Tensor:
    """The mean of losses (K,) or (N, K), of classes with `pixels` in the labels or of all; 0 if there are none.

    Where no pixel of the picture has a class, nothing counts: an image that is ignored as a whole costs nothing.
    """
    counts = pixels > 0 if present_only else (pixels.sum(-1, keepdim=True) > 0).expand_as(pixels)
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def _jaccard_slope(truth: Tensor) -> Tensor:
    """By how much the Jaccard loss grows with each further error, (..., P) from truth in the errors' order."""
    total = truth.sum(-1, keepdim=True, dtype=torch.int64)
    hits = truth.cumsum(-1, dtype=torch.int64)  # whole numbers, beyond what float32 can count
    misses = torch.arange(1, truth.shape[-1] + 1, device=truth.device) - hits
    jaccard = 1 - (total - hits) / (total + misses)
    return torch.cat([jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]], dim=-1)
