"""Losses on class scores before sigmoid or softmax, computed in float32 whatever the input.

Source of the focal loss: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.
Letters: K classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vertebra.models.contracts import Loss
from vertebra.models.losses.pixel_labels import check_labels, weights_of
from vertebra.models.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "SigmoidFocalLoss"]


class SigmoidFocalLoss(Loss):
    """alpha_t (1 - p_t)^gamma times the binary cross entropy, per class (equation 5).

    One tensor of the size of the logits is kept for the backward pass.

    Args:
        alpha: weight of the positives, 1 - alpha that of the negatives; None (or below 0): no weighting.
        gamma: how strongly easy examples are played down; 0 gives the binary cross entropy.
    """

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "none") -> None:
        super().__init__()
        if gamma < 0 or (alpha is not None and (alpha == 0 or alpha >= 1)):
            raise ValueError(
                f"SigmoidFocalLoss: alpha {alpha} must lie between 0 and 1 (at 0 objects cost nothing, at 1 the "
                f"background) or be null, and gamma {gamma} must be at least 0"
            )
        self.alpha = None if alpha is None or alpha < 0 else alpha
        self.gamma = gamma
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Losses per logit, of the shape of `logits`, or their sum or mean.

        Args:
            logits: (..., K) float.
            targets: of the same shape, 0 to 1; or class ids (...) int64, where any id outside [0, K) is background.
                Ids save the memory of the one-hot tensor.
        """
        if targets.shape == logits.shape:
            return reduce(_Focal.apply(logits, targets, self.alpha, self.gamma), self.reduction)
        if targets.shape == logits.shape[:-1] and not targets.is_floating_point():
            one_hot = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)  # (..., K) bool
            return reduce(_Focal.apply(logits, one_hot, self.alpha, self.gamma), self.reduction)
        raise ValueError(
            f"SigmoidFocalLoss: targets {tuple(targets.shape)} {targets.dtype} fit logits {tuple(logits.shape)} "
            f"neither as scores of that shape nor as int64 class ids of shape {tuple(logits.shape[:-1])}"
        )


class CrossEntropy(Loss):
    """Softmax cross entropy of logits (N, K, ...) with labels (N, ...) int64.

    Args:
        class_weights: K factors; the mean is then the weighted mean, as in torch. None: all 1.
        ignore_index: label without loss. 255 is the convention of semantic segmentation; with more than 255 classes
            name another one, such as -100.
        label_smoothing: share of the target that is spread evenly over all classes.
    """

    min_classes: ClassVar[int] = 2
    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: list[float] | None = None,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"CrossEntropy: label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        self.register_buffer("class_weights", weights_of(class_weights), persistent=False)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar, or (N, ...) without reduction. The mean is over labels not ignored; 0 if all of them are."""
        num_classes = logits.shape[1]
        check_labels(self, labels, num_classes, self.ignore_index)
        loss = F.cross_entropy(
            logits.float(),
            labels,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none" if self.reduction == "none" else "sum",
        )
        if self.reduction != "mean":
            return loss
        valid = labels != self.ignore_index
        if self.class_weights is None:
            return loss / valid.sum().clamp(min=1)
        weight = self.class_weights[labels.where(valid, 0)].where(valid, 0).sum()
        return loss / weight.where(weight > 0, 1)


class BinaryCrossEntropy(Loss):
    """Sigmoid cross entropy of logits with targets 0 to 1 of the same shape.

    Args:
        pos_weight: factor of the positive term; above 1 it favors recall.
    """

    def __init__(self, pos_weight: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        if pos_weight <= 0:
            raise ValueError(f"BinaryCrossEntropy: pos_weight is {pos_weight}; it must be above 0")
        self.pos_weight = pos_weight
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape != targets.shape:
            raise ValueError(f"BinaryCrossEntropy: logits {tuple(logits.shape)} but targets {tuple(targets.shape)}")
        factor = None if self.pos_weight == 1 else torch.tensor(self.pos_weight, device=logits.device)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), pos_weight=factor, reduction="none")
        return reduce(loss, self.reduction)


class _Focal(torch.autograd.Function):
    """The focal loss per element; value and derivative are made together, since they share almost everything."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, alpha: float | None, gamma: float) -> Tensor:
        x, y = logits.float(), targets.to(torch.float32)
        p = x.sigmoid()
        entropy = F.softplus(x).sub_(x * y)  # binary cross entropy, for any y in [0, 1], at any x
        sign = 1 - 2 * y
        miss = torch.addcmul(y, sign, p)  # 1 - p_t
        factor = miss.pow(gamma)
        if alpha is not None:
            factor.mul_(torch.add(1 - alpha, y, alpha=2 * alpha - 1))
        if ctx.needs_input_grad[0]:
            slope = p - y  # of the entropy
            if gamma > 0:  # of the factor: gamma miss^(gamma - 1) times that of `miss`, sign p (1 - p)
                inner = sign.mul_(p).mul_(1 - p).mul_(entropy).mul_(gamma)
                slope.add_(inner.div_(miss.clamp_(min=1e-20)))
            ctx.save_for_backward(slope.mul_(factor).to(logits.dtype))
        return entropy.mul_(factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradient * slope).to(slope.dtype), None, None, None
