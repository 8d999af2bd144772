"""Losses on boxes and on box deltas, computed in float32 whatever the input.

The overlap losses take matched pairs of boxes (..., 4), xyxy, in one unit, and give one loss per pair; they say so by
`on_boxes`. The others take whatever numbers a head regresses.
Sources: Rezatofighi et al., "Generalized Intersection over Union", arXiv:1902.09630 (GIoU);
Zheng et al., "Distance-IoU Loss", arXiv:1911.08287 (DIoU, CIoU).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.models.contracts import Loss
from vertebra.models.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["CIoULoss", "DIoULoss", "GIoULoss", "IoULoss", "L1Loss", "SmoothL1Loss"]

_EPS = 1e-7  # added to areas and squared lengths; the unit is the boxes' own


class SmoothL1Loss(Loss):
    """Quadratic below `beta`, linear above: 0.5 d^2 / beta, or d - 0.5 beta. Any shape, element by element.

    Source: Girshick, "Fast R-CNN", arXiv:1504.08083, with the width as an argument.

    Args:
        beta: where the two pieces meet; 0 gives the L1 loss.
    """

    def __init__(self, beta: float = 0.0, reduction: Reduction = "none") -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"SmoothL1Loss: beta is {beta}, but it cannot be negative")
        self.beta = beta
        self.reduction = check_reduction(reduction)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction, target = _float_pair(prediction, target)
        if self.beta < 1e-5:  # Detectron2's bound: below it the quadratic piece only makes NaN gradients
            loss = (prediction - target).abs()
        else:
            loss = F.smooth_l1_loss(prediction, target, reduction="none", beta=self.beta)
        return reduce(loss, self.reduction)


class _ReducedLoss(Loss):
    """A loss with no other argument than its reduction."""

    def __init__(self, reduction: Reduction = "none") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)


class L1Loss(_ReducedLoss):
    """Absolute difference. Any shape, element by element."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction, target = _float_pair(prediction, target)
        return reduce((prediction - target).abs(), self.reduction)


class IoULoss(Loss):
    """1 - IoU, or -ln IoU (Yu et al., "UnitBox", arXiv:1608.01471).

    Args:
        form: "linear" or "log"; the latter is bounded at disjoint boxes by the smallest IoU it knows, 1e-7.
    """

    on_boxes: ClassVar[bool] = True

    def __init__(self, form: Literal["linear", "log"] = "linear", reduction: Reduction = "none") -> None:
        super().__init__()
        if form not in ("linear", "log"):
            raise ValueError(f"IoULoss: form is {form!r}; it must be 'linear' or 'log'")
        self.form = form
        self.reduction = check_reduction(reduction)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        iou = _overlap(prediction, target).iou
        return reduce(1 - iou if self.form == "linear" else -iou.clamp(min=_EPS).log(), self.reduction)


class GIoULoss(_ReducedLoss):
    """1 - GIoU, in [0, 2]: IoU less the share of the enclosing box that neither box covers."""

    on_boxes: ClassVar[bool] = True

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        pair = _overlap(prediction, target)
        enclosing = pair.enclosing_width * pair.enclosing_height
        return reduce(1 - pair.iou + (enclosing - pair.union) / (enclosing + _EPS), self.reduction)


class DIoULoss(_ReducedLoss):
    """1 - IoU + (distance of the centers / diagonal of the enclosing box)^2, in [0, 2]."""

    on_boxes: ClassVar[bool] = True

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        pair = _overlap(prediction, target)
        return reduce(1 - pair.iou + _center_distance(prediction, target, pair), self.reduction)


class CIoULoss(_ReducedLoss):
    """DIoU's loss plus a term for the difference of the aspect ratios, whose weight is held fixed (equation 11)."""

    on_boxes: ClassVar[bool] = True

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        pair = _overlap(prediction, target)
        aspect = (4 / math.pi**2) * (_angle(target) - _angle(prediction)) ** 2
        with torch.no_grad():
            weight = aspect / (1 - pair.iou + aspect + _EPS)
        return reduce(1 - pair.iou + _center_distance(prediction, target, pair) + weight * aspect, self.reduction)


class _Overlap(NamedTuple):
    """Of each pair (...,): what the overlap losses share."""

    iou: Tensor
    union: Tensor
    enclosing_width: Tensor
    enclosing_height: Tensor


def _overlap(prediction: Tensor, target: Tensor) -> _Overlap:
    prediction, target = _float_pair(prediction, target)
    if prediction.shape[-1] != 4:
        raise ValueError(f"boxes must have shape (..., 4), xyxy; got {tuple(prediction.shape)}")
    low = torch.maximum(prediction[..., :2], target[..., :2])
    high = torch.minimum(prediction[..., 2:], target[..., 2:])
    inside = (high - low).clamp(min=0)
    intersection = inside[..., 0] * inside[..., 1]
    union = _area(prediction) + _area(target) - intersection
    width, height = (
        torch.maximum(prediction[..., 2:], target[..., 2:]) - torch.minimum(prediction[..., :2], target[..., :2])
    ).unbind(dim=-1)
    return _Overlap(intersection / (union + _EPS), union, width, height)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _center_distance(prediction: Tensor, target: Tensor, pair: _Overlap) -> Tensor:
    """Squared distance of the centers over the squared diagonal of the enclosing box."""
    prediction, target = _float_pair(prediction, target)
    between = (prediction[..., :2] + prediction[..., 2:] - target[..., :2] - target[..., 2:]) / 2  # (..., 2)
    diagonal = pair.enclosing_width**2 + pair.enclosing_height**2 + _EPS
    return (between**2).sum(dim=-1) / diagonal


def _angle(boxes: Tensor) -> Tensor:
    """Of the diagonal, in radians: arctan(width / height)."""
    boxes = boxes.float()
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return torch.atan(width / height.clamp(min=_EPS))


def _float_pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape; got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    return prediction.float(), target.float()
