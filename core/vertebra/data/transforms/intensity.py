"""Transforms of brightness that suit microscopes and other gray pictures: gamma and noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertebra.data.transforms.base import ColorTransform

__all__ = ["GaussianNoise", "RandomGamma"]


class RandomGamma(ColorTransform):
    """Raise the pixel values, as parts of white, to a random power; black and white stay.

    Args:
        low, high: bounds of the power; its logarithm is uniform, so that darker and lighter are as likely for
            [1 / x, x].
        prob: how likely an image is changed at all.
        images: names of the images that it changes.
    """

    def __init__(
        self, low: float = 0.67, high: float = 1.5, prob: float = 1.0, images: Sequence[str] = ("image",)
    ) -> None:
        if not 0 < low <= high or not 0 <= prob <= 1:
            raise ValueError(f"RandomGamma needs 0 < low <= high and prob in [0, 1], got {low}, {high} and {prob}")
        self.low = low
        self.high = high
        super().__init__(prob, images)

    def draw(self, rng: np.random.Generator) -> float:
        return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))

    def recolor(self, pixels: Tensor, highest: float, amounts: Any, rng: np.random.Generator) -> Tensor:
        if pixels.dtype == torch.uint8 and highest == 255:
            table = (255 * np.linspace(0, 1, 256) ** amounts).round().astype(np.uint8)
            return torch.from_numpy(table[pixels.numpy()])
        changed = (pixels / highest).clamp(min=0) ** amounts * highest
        return changed if pixels.is_floating_point() else changed.round().clamp(max=_largest(pixels)).to(pixels.dtype)


class GaussianNoise(ColorTransform):
    """Add independent noise to every pixel and channel.

    Args:
        highest, lowest: bounds of the uniform standard deviation, in steps of 255 from black to white.
        prob: how likely an image is changed at all.
        images: names of the images that it changes.
    """

    def __init__(
        self, highest: float = 10.0, lowest: float = 0.0, prob: float = 1.0, images: Sequence[str] = ("image",)
    ) -> None:
        if not 0 <= lowest <= highest or not 0 <= prob <= 1:
            raise ValueError(
                f"GaussianNoise needs 0 <= lowest <= highest and prob in [0, 1], got {lowest}, {highest} and {prob}"
            )
        self.lowest = lowest
        self.highest = highest
        super().__init__(prob, images)

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.lowest, self.highest))

    def recolor(self, pixels: Tensor, highest: float, amounts: Any, rng: np.random.Generator) -> Tensor:
        deviation = np.float32(amounts if highest == 255 else amounts * highest / 255)
        noisy = pixels.numpy() + rng.standard_normal(tuple(pixels.shape), dtype=np.float32) * deviation
        if pixels.is_floating_point():
            return torch.from_numpy(noisy)
        return torch.from_numpy(noisy.round().clip(0, _largest(pixels))).to(pixels.dtype)


def _largest(pixels: Tensor) -> int:
    """The largest value of files of 8 or 16 bits."""
    return 255 if pixels.dtype == torch.uint8 else 65535
