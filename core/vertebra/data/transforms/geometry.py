"""Transforms that mirror or cut the image."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = ["RandomCrop", "RandomFlip"]


class RandomFlip(Transform):
    """Mirror the image with probability `prob`.

    Args:
        prob: between 0 and 1.
        horizontal: left and right change places.
        vertical: top and bottom change places. If both are set, each is drawn by itself.
    """

    def __init__(self, prob: float = 0.5, horizontal: bool = True, vertical: bool = False) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"RandomFlip: prob is {prob}, expected a number between 0 and 1")
        if not (horizontal or vertical):
            raise ValueError("RandomFlip needs horizontal or vertical to be true")
        self.prob = prob
        self.horizontal = horizontal
        self.vertical = vertical

    def refuses(self, field: FieldSection) -> str | None:
        unknown = field.geometry == "points" and field.mirror is None and self.prob > 0
        return "it mirrors, and which points change places is not known (`mirror:` pairs, or [])" if unknown else None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.horizontal and rng.uniform() < self.prob:
            sample = sample.flip(horizontal=True)
        if self.vertical and rng.uniform() < self.prob:
            sample = sample.flip(vertical=True)
        return sample


class RandomCrop(Transform):
    """Cut out a window at a random place.

    Source: Detectron2's transform of this name, with its four ways to choose the size.

    Args:
        crop_type: what `crop_size` means. `relative`: parts of the image's height and width; `relative_range`: drawn
            between `crop_size` and 1, for each direction; `absolute`: pixels; `absolute_range`: both sides drawn
            between crop_size[0] and crop_size[1] pixels. Never larger than the image.
        crop_size: two numbers, [height, width] or [lowest, highest].
        min_visible: instances of whose box no more than this part is left are dropped; 0 keeps all that show at all.
        tighten_boxes: make boxes anew from the masks that are left.
    """

    def __init__(
        self,
        crop_type: Literal["relative", "relative_range", "absolute", "absolute_range"],
        crop_size: list[float],
        min_visible: float = 0.0,
        tighten_boxes: bool = False,
    ) -> None:
        low, high = crop_size
        if crop_type in ("relative", "relative_range"):
            if not (0 < low <= 1 and 0 < high <= 1):
                raise ValueError(f"RandomCrop: {crop_type} needs parts above 0 and up to 1, got {crop_size}")
        elif crop_type in ("absolute", "absolute_range"):
            if low != int(low) or high != int(high) or min(low, high) < 1:
                raise ValueError(f"RandomCrop: {crop_type} needs whole numbers of pixels, got {crop_size}")
            if crop_type == "absolute_range" and low > high:
                raise ValueError(f"RandomCrop: absolute_range needs [lowest, highest], got {crop_size}")
        else:
            raise ValueError(f"RandomCrop: unknown crop_type {crop_type!r}")
        self.crop_type = crop_type
        self.crop_size = (low, high)
        self.min_visible = min_visible
        self.tighten_boxes = tighten_boxes

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.size
        crop_height, crop_width = self._crop_size(height, width, rng)
        top = int(rng.integers(0, height - crop_height + 1))
        left = int(rng.integers(0, width - crop_width + 1))
        sample = sample.crop(top, left, crop_height, crop_width, self.min_visible)
        return sample.boxes_from_masks() if self.tighten_boxes else sample

    def _crop_size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        low, high = self.crop_size
        if self.crop_type == "absolute":
            return min(int(low), height), min(int(high), width)
        if self.crop_type == "absolute_range":
            sides = [rng.integers(min(side, int(low)), min(side, int(high)) + 1) for side in (height, width)]
            return int(sides[0]), int(sides[1])
        parts = np.array(self.crop_size)
        if self.crop_type == "relative_range":
            parts = parts + rng.random(2) * (1 - parts)
        return max(int(height * parts[0] + 0.5), 1), max(int(width * parts[1] + 0.5), 1)
