"""Losses that heads of several kinds share."""

from vertebra.models.losses.boxes import CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss
from vertebra.models.losses.classification import BinaryCrossEntropy, CrossEntropy, SigmoidFocalLoss

__all__ = [
    "BinaryCrossEntropy",
    "CIoULoss",
    "CrossEntropy",
    "DIoULoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
]
