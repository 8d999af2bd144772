"""Feature maps: whether they are what a backbone or neck announces, and ones made by hand."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from vertebra.models import ShapeSpec
from vertebra.testing.checks import require

__all__ = ["check_feature_maps", "make_features", "total_of"]


def check_feature_maps(features: Any, announced: dict[str, ShapeSpec], images: Tensor | None = None) -> None:
    """{name: (N, C, H/s, W/s)}, finest first, as `output_shape` says; finite.

    Args:
        images: (N, 3, H, W) that they were made of; None: sizes are compared among themselves.
    """
    require(isinstance(features, dict), f"forward returns a dict of feature maps, got a {type(features).__name__}")
    require(
        list(features) == list(announced),
        f"forward gives {', '.join(map(str, features))}, output_shape announces {', '.join(announced)}",
    )
    strides = [spec.stride for spec in announced.values()]
    require(strides == sorted(strides), f"output_shape must list the finest level first; the strides are {strides}")
    for name, spec in announced.items():
        feature = features[name]
        require(isinstance(feature, Tensor) and feature.dim() == 4, f"{name} must be a tensor (N, C, H, W)")
        require(feature.shape[1] == spec.channels, f"{name} has {feature.shape[1]} channels, announced {spec.channels}")
        require(bool(torch.isfinite(feature).all()), f"{name} has values that are not finite")
        if images is not None:
            wanted = tuple(-(-side // spec.stride) for side in images.shape[2:])
            require(
                len(feature) == len(images) and tuple(feature.shape[2:]) == wanted,
                f"{name} is {tuple(feature.shape)} for images {tuple(images.shape)}; stride {spec.stride} "
                f"makes {len(images)} maps of {wanted}",
            )


def make_features(
    shapes: dict[str, ShapeSpec], count: int = 2, size: tuple[int, int] = (64, 96), *, learn: bool = False
) -> dict[str, Tensor]:
    """Noise (count, C, H/s, W/s) for every level of images of `size` (height, width)."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(
            count, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride), generator=generator
        ).requires_grad_(learn)
        for name, spec in shapes.items()
    }


def total_of(features: dict[str, Tensor]) -> Tensor:
    """A scalar that depends on every value of every map, each in its own way."""
    generator = torch.Generator().manual_seed(2)
    noise = [torch.randn(feature.shape, generator=generator) for feature in features.values()]
    return reduce(operator.add, ((a.float() * b).mean() for a, b in zip(features.values(), noise, strict=True)))
