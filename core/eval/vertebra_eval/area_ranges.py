"""COCO's area ranges, which datasets are described by and detections evaluated in."""

__all__ = ["AREA_RANGES"]

AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Ground truth areas in square pixels, both ends inclusive (https://cocodataset.org/#detection-eval)."""
