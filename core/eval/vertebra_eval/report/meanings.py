"""The meanings of the numbers of semantic and panoptic evaluations, for readers of the report."""

from __future__ import annotations

__all__ = ["SEGMENTATION_MEANINGS"]

_QUALITIES = {
    "PQ": "panoptic quality: SQ times RQ of each class",
    "SQ": "segmentation quality: mean IoU of the segments that were found",
    "RQ": "recognition quality: F1 of finding segments (IoU above 0.5)",
}
SEGMENTATION_MEANINGS = {
    "mIoU": "mean over the classes of intersection over union",
    "fwIoU": "the same, weighted by how frequent a class is",
    "pixel_accuracy": "share of pixels with the right class",
    "mean_accuracy": "mean over the classes of that share (recall)",
    "mDice": "mean over the classes of Dice",
    "mF1": "the same by its other name",
    "mPrecision": "mean over the classes of precision",
    "mBoundaryIoU": "mean over the classes of the IoU near contours",
    **{name: f"{text}, mean over the classes" for name, text in _QUALITIES.items()},
    **{f"{name}_{kind}": f"{name} of {kind} classes alone" for kind in ("things", "stuff") for name in _QUALITIES},
}
"""Metric name without its task -> what it is."""
