"""Layers that semantic heads share: upsampling, unpooling, cropping, and contexts wider than a 3x3 kernel."""

from vertebra._deprecation import former_names
from vertebra.models.convolution import (
    ConvNorm,
    becomes_graph,
    fill_bias,
    msra_fill,
    normal_fill,
    visible_taps,
    xavier_fill,
)
from vertebra.models.layers.aspp import ASPP
from vertebra.models.layers.large_kernel import LargeSeparableKernel
from vertebra.models.layers.pyramid import PyramidPooling
from vertebra.models.layers.separable import SeparableConvNorm
from vertebra.models.layers.unpooling import MaxPoolWithIndices, MaxUnpool
from vertebra.models.layers.upsampling import (
    BilinearConvTranspose2d,
    Upsample,
    bilinear_kernel,
    crop,
    crop_like,
    resize,
)
from vertebra.models.norms import NormName, get_norm

__all__ = [
    "ASPP",
    "BilinearConvTranspose2d",
    "ConvNorm",
    "LargeSeparableKernel",
    "MaxPoolWithIndices",
    "MaxUnpool",
    "NormName",
    "PyramidPooling",
    "SeparableConvNorm",
    "Upsample",
    "becomes_graph",
    "bilinear_kernel",
    "crop",
    "crop_like",
    "fill_bias",
    "get_norm",
    "msra_fill",
    "normal_fill",
    "resize",
    "visible_taps",
    "xavier_fill",
]

__getattr__ = former_names(__name__)
