"""Layers that semantic heads share: upsampling, unpooling, cropping, and contexts wider than a 3x3 kernel."""

from vertebra.models.layers.aspp import ASPP
from vertebra.models.layers.large_kernel import LargeSeparableKernel
from vertebra.models.layers.pyramid import PyramidPooling
from vertebra.models.layers.separable import SeparableConvNorm
from vertebra.models.layers.unpooling import MaxPoolWithIndices, MaxUnpool
from vertebra.models.layers.upsampling import BilinearConvTranspose2d, Upsample, bilinear_kernel, crop, crop_like

__all__ = [
    "ASPP",
    "BilinearConvTranspose2d",
    "LargeSeparableKernel",
    "MaxPoolWithIndices",
    "MaxUnpool",
    "PyramidPooling",
    "SeparableConvNorm",
    "Upsample",
    "bilinear_kernel",
    "crop",
    "crop_like",
]
