"""Transforms that change colors and leave all places as they are."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = ["ColorJitter", "HSVJitter"]


class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue by random amounts, in a random order, as torchvision does.

    Args:
        brightness, contrast, saturation: the factor is uniform in [1 - x, 1 + x], never below 0; 0 leaves it alone.
        hue: the shift is uniform in [-hue, hue] parts of the color circle; at most 0.5. The slowest of the four.
        prob: how likely an image is changed at all.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
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
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        from torchvision.transforms.v2 import functional as F

        changes = [
            (F.adjust_brightness_image, self.brightness, 1.0),
            (F.adjust_contrast_image, self.contrast, 1.0),
            (F.adjust_saturation_image, self.saturation, 1.0),
            (F.adjust_hue_image, self.hue, 0.0),
        ]
        for i in rng.permutation(len(changes)):
            adjust, amount, neutral = changes[i]
            if amount > 0:
                factor = rng.uniform(max(neutral - amount, 0.0) if neutral else -amount, neutral + amount)
                sample.image = adjust(sample.image, factor)
        return sample


class HSVJitter(Transform):
    """Multiply hue, saturation and value by random factors; the amounts are those that YOLOv5 publishes.

    Args:
        hue, saturation, value: the factor is uniform in [1 - x, 1 + x]; 0 leaves it alone. The hue goes round in 256
            steps.
        prob: how likely an image is changed at all.
    """

    def __init__(self, hue: float = 0.015, saturation: float = 0.7, value: float = 0.4, prob: float = 1.0) -> None:
        if not all(0 <= amount <= 1 for amount in (hue, saturation, value, prob)):
            raise ValueError(
                f"HSVJitter needs amounts and prob in [0, 1], got hue={hue}, saturation={saturation}, value={value}, "
                f"prob={prob}"
            )
        self.amounts = (hue, saturation, value)
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if not any(self.amounts) or rng.uniform() >= self.prob:
            return sample
        steps = np.arange(256)[:, None] * (1 + rng.uniform(-1, 1, 3) * self.amounts)  # (256, 3)
        steps[:, 0] %= 256
        table = steps.clip(0, 255).astype(np.uint8).T.reshape(-1).tolist()
        pixels = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
        changed = Image.fromarray(pixels).convert("HSV").point(table).convert("RGB")
        sample.image = torch.from_numpy(np.array(changed)).permute(2, 0, 1)
        return sample
