"""Losses that heads of several kinds share."""

from vertebra._deprecation import former_names
from vertebra.models.losses.boxes import CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss
from vertebra.models.losses.classification import BinaryCrossEntropy, CrossEntropy, SigmoidFocalLoss
from vertebra.models.losses.compound import CompoundLoss
from vertebra.models.losses.distance import BoundaryLoss, DistanceWeightedCrossEntropy
from vertebra.models.losses.pixels import HardPixelCrossEntropy, PixelBCE, PixelFocalLoss
from vertebra.models.losses.reduction import check_unreduced
from vertebra.models.losses.region_overlap import DiceLoss, JaccardLoss, LovaszSoftmax, TverskyLoss

__all__ = [
    "BinaryCrossEntropy",
    "BoundaryLoss",
    "CIoULoss",
    "CompoundLoss",
    "CrossEntropy",
    "DIoULoss",
    "DiceLoss",
    "DistanceWeightedCrossEntropy",
    "GIoULoss",
    "HardPixelCrossEntropy",
    "IoULoss",
    "JaccardLoss",
    "L1Loss",
    "LovaszSoftmax",
    "PixelBCE",
    "PixelFocalLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "TverskyLoss",
    "check_unreduced",
]

__getattr__ = former_names(__name__)
