"""Necks: feature maps to feature maps."""

from vertebra.models.necks.fpn import FPN, P6P7, MaxPool, TopBlock

__all__ = ["FPN", "P6P7", "MaxPool", "TopBlock"]
