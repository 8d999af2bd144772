"""Necks: feature maps to feature maps."""

from vertebra.models.necks.fpn import FPN, P6P7, MaxPool, TopBlock
from vertebra.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ["FPN", "P6P7", "MaxPool", "SimpleFeaturePyramid", "TopBlock"]
