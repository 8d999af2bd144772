"""`DenseMap`: one value, or several, for each pixel of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

__all__ = ["DenseMap"]


@dataclass
class DenseMap:
    """Values per pixel, such as depth.

    Args:
        tensor: (H, W) or (C, H, W).
        fill: the value of pixels beyond the image, where a batch pads it.
        smooth: interpolate where it is resized.
    """

    tensor: Tensor
    fill: float = 0.0
    smooth: bool = False

    def to(self, *args: Any, **kwargs: Any) -> DenseMap:
        """On another device; takes what `Tensor.to` takes."""
        return replace(self, tensor=self.tensor.to(*args, **kwargs))
