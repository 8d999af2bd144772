"""Transforms that change colors and leave all places as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vertebra.data.transforms.base import ColorTransform
from vertebra.data.transforms.sample import Sample

__all__ = ["ColorJitter", "HSVJitter"]


class ColorJitter(ColorTransform):
    """Change brightness, contrast, saturation and hue by random amounts, in a random order, as torchvision does.

    Args:
        brightness, contrast, saturation: the factor is uniform in [1 - x, 1 + x], never below 0; 0 leaves it alone.
        hue: the shift is uniform in [-hue, hue] parts of the color circle; at most 0.5. The slowest of the four.
        prob: how likely an image is changed at all.
        images: names of the images that it changes; RGB or gray, of 8 bits.
    """

    channels = (1, 3)
    only_uint8 = True

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
        images: Sequence[str] = ("image",),
    ) -> None:
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5 or not 0 <= prob <= 1:
            raise ValueError(
                f"ColorJitter needs amounts of at least 0, hue in [0, 0.5] and prob in [0, 1], "
                f"got brightness={brightness}, contrast={contrast}, saturation={saturation}, hue={hue}, prob={prob}"
            )
        import torchvision.transforms.v2  # noqa: F401  loads slowly; here, once for all workers that are forked

        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        super().__init__(prob, images)

    def draw(self, rng: np.random.Generator) -> list[tuple[Callable[..., Tensor], float]]:
        from torchvision.transforms.v2 import functional as F

        changes = [
            (F.adjust_brightness_image, self.brightness, 1.0),
            (F.adjust_contrast_image, self.contrast, 1.0),
            (F.adjust_saturation_image, self.saturation, 1.0),
            (F.adjust_hue_image, self.hue, 0.0),
        ]
        drawn = []
        for i in rng.permutation(len(changes)):
            adjust, amount, neutral = changes[i]
            if amount > 0:
                factor = rng.uniform(max(neutral - amount, 0.0) if neutral else -amount, neutral + amount)
                drawn.append((adjust, factor))
        return drawn

    def recolor(self, pixels: Tensor, highest: float, amounts: Any, rng: np.random.Generator) -> Tensor:
        for adjust, factor in amounts:
            pixels = adjust(pixels, factor)
        return pixels


class HSVJitter(ColorTransform):
    """Multiply hue, saturation and value by random factors; the amounts are those that YOLOv5 publishes.

    Args:
        hue, saturation, value: the factor is uniform in [1 - x, 1 + x]; 0 leaves it alone. The hue goes round in 256
            steps.
        prob: how likely an image is changed at all.
        images: names of the images that it changes; RGB of 8 bits.
    """

    channels = (3,)
    only_uint8 = True

    def __init__(
        self,
        hue: float = 0.015,
        saturation: float = 0.7,
        value: float = 0.4,
        prob: float = 1.0,
        images: Sequence[str] = ("image",),
    ) -> None:
        if not all(0 <= amount <= 1 for amount in (hue, saturation, value, prob)):
            raise ValueError(
                f"HSVJitter needs amounts and prob in [0, 1], got hue={hue}, saturation={saturation}, value={value}, "
                f"prob={prob}"
            )
        self.amounts = (hue, saturation, value)
        super().__init__(prob, images)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return super().__call__(sample, rng) if any(self.amounts) else sample

    def draw(self, rng: np.random.Generator) -> list[int]:
        steps = np.arange(256)[:, None] * (1 + rng.uniform(-1, 1, 3) * self.amounts)  # (256, 3)
        steps[:, 0] %= 256
        return steps.clip(0, 255).astype(np.uint8).T.reshape(-1).tolist()

    def recolor(self, pixels: Tensor, highest: float, amounts: Any, rng: np.random.Generator) -> Tensor:
        image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        changed = image.convert("HSV").point(amounts).convert("RGB")
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1)
