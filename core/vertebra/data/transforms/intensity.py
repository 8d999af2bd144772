"""Transforms of brightness that suit microscopes and other gray pictures: gamma and noise."""

from __future__ import annotations

import numpy as np
import torch

from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = ["GaussianNoise", "RandomGamma"]


class RandomGamma(Transform):
    """Raise the pixel values, as parts of 255, to a random power; black and white stay.

    Args:
        low, high: bounds of the power; its logarithm is uniform, so that darker and lighter are as likely for
            [1 / x, x].
        prob: how likely an image is changed at all.
    """

    def __init__(self, low: float = 0.67, high: float = 1.5, prob: float = 1.0) -> None:
        if not 0 < low <= high or not 0 <= prob <= 1:
            raise ValueError(f"RandomGamma needs 0 < low <= high and prob in [0, 1], got {low}, {high} and {prob}")
        self.low = low
        self.high = high
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        power = np.exp(rng.uniform(np.log(self.low), np.log(self.high)))
        table = (255 * np.linspace(0, 1, 256) ** power).round().astype(np.uint8)
        sample.image = torch.from_numpy(table[sample.image.numpy()])
        return sample


class GaussianNoise(Transform):
    """Add independent noise to every pixel and channel.

    Args:
        highest, lowest: bounds of the uniform standard deviation, in steps of 255.
        prob: how likely an image is changed at all.
    """

    def __init__(self, highest: float = 10.0, lowest: float = 0.0, prob: float = 1.0) -> None:
        if not 0 <= lowest <= highest or not 0 <= prob <= 1:
            raise ValueError(
                f"GaussianNoise needs 0 <= lowest <= highest and prob in [0, 1], got {lowest}, {highest} and {prob}"
            )
        self.lowest = lowest
        self.highest = highest
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        deviation = rng.uniform(self.lowest, self.highest)
        noise = rng.standard_normal(tuple(sample.image.shape), dtype=np.float32) * np.float32(deviation)
        noisy = sample.image.numpy() + noise
        sample.image = torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))
        return sample
