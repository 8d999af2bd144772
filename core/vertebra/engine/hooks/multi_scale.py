"""MultiScale: every few steps another size of the input, drawn anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vertebra.engine.hook import Hook, Training
from vertebra.structures import BitMasks, Boxes, DenseMap, Instances, Keypoints, PolygonMasks, RotatedBoxes
from vertebra.structures.resize import resize_pixels

__all__ = ["MultiScale", "resize_input"]


class MultiScale(Hook):
    """Resizes each batch, on the device, so that its longest side has a length that changes every few steps.

    Source: Redmon & Farhadi, "YOLO9000", arXiv:1612.08242, section 2, "Multi-Scale Training": every 10 batches one of
    320, 352, ..., 608. All images of a batch are scaled by one factor, and what is drawn on them with them.
    The size depends on the run's seed and the step alone: it is the same in all processes and after a restart.

    Args:
        sizes: lengths in pixels to draw from; best multiples of the model's coarsest stride.
        every: steps between two draws.
    """

    def __init__(self, sizes: Sequence[int] = tuple(range(320, 609, 32)), every: int = 10) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"MultiScale: sizes are {list(sizes)}; expected lengths of at least 1 pixel")
        if every < 1:
            raise ValueError(f"MultiScale: every is {every}; it must be at least 1 step")
        self.sizes = list(sizes)
        self.every = every

    def size_at(self, step: int, seed: int) -> int:
        """The length that step `step` (from 0) of a run with this seed has."""
        return int(np.random.default_rng([seed, step // self.every]).choice(self.sizes))

    def before_forward(self, trainer: Training) -> None:
        longest = max(max(sample["image"].shape[-2:]) for sample in trainer.batch)
        scale = self.size_at(trainer.step, trainer.plan.seed) / longest
        images = getattr(trainer.model, "pixels", ("image",))
        trainer.batch = [resize_input(sample, scale, trainer.device, images) for sample in trainer.batch]


def resize_input(
    sample: dict[str, Any], scale: float, device: torch.device, images: Collection[str] = ("image",)
) -> dict[str, Any]:
    """A copy of an input, scaled: its images, `sem_seg`, `instances`, and declared fields of the whole image.

    Args:
        scale: of both sides, which become whole numbers of at least 1 pixel; the rest follows these.
        device: where the pixels are resized and stay.
        images: names of the images.
    """
    old = height, width = tuple(sample["image"].shape[-2:])
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size == old:
        return sample
    result = {}
    for name, value in sample.items():
        if name in images:
            value = resize_pixels(value.to(device, non_blocking=True), size, smooth=True)
        elif name == "sem_seg" and value is not None:
            value = _resized(DenseMap(value.to(device, non_blocking=True)), old, size).tensor
        elif isinstance(value, Instances) and name == "instances":
            fields = {key: _resized(field, value.image_size, size) for key, field in value.get_fields().items()}
            value = Instances(size, **fields)
        else:
            value = _resized(value, old, size)
        result[name] = value
    return result


def _resized(value: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """What holds places in an image of (height, width), in one of another; anything else as it is."""
    x, y = new[1] / old[1], new[0] / old[0]
    if isinstance(value, (Boxes, RotatedBoxes)):
        value = value.clone()
        value.scale(x, y)
    elif isinstance(value, PolygonMasks):
        value = PolygonMasks([[points * np.tile((x, y), len(points) // 2) for points in item] for item in value])
    elif isinstance(value, BitMasks):
        value = BitMasks(resize_pixels(value.tensor.to(torch.uint8), new, smooth=False).bool())
    elif isinstance(value, Keypoints):
        value = Keypoints(value.tensor * value.tensor.new_tensor((x, y, 1.0)))
    elif isinstance(value, DenseMap):
        flat = value.tensor.dim() == 2
        pixels = resize_pixels(value.tensor[None] if flat else value.tensor, new, smooth=value.smooth)
        value = replace(value, tensor=pixels[0] if flat else pixels)
    return value
