"""MultiScale: every few steps another size of the input, drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vertebra.engine.hook import Hook, Training
from vertebra.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
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
        trainer.batch = [resize_input(sample, scale, trainer.device) for sample in trainer.batch]


def resize_input(sample: dict[str, Any], scale: float, device: torch.device) -> dict[str, Any]:
    """A copy of an input, scaled: image, `sem_seg`, and boxes, masks and keypoints of `instances`.

    Args:
        scale: of both sides, which become whole numbers of at least 1 pixel; the rest follows these.
        device: where the pixels are resized and stay.
    """
    height, width = sample["image"].shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size == (height, width):
        return sample
    image = sample["image"].to(device, non_blocking=True)
    result = {**sample, "image": resize_pixels(image, size, smooth=True)}
    if sample.get("sem_seg") is not None:
        labels = sample["sem_seg"].to(device, non_blocking=True)[None]
        result["sem_seg"] = resize_pixels(labels, size, smooth=False)[0]
    if sample.get("instances") is not None:
        result["instances"] = _resize_instances(sample["instances"], size)
    return result


def _resize_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same objects in an image of another (height, width); fields that hold no places stay as they are."""
    old_height, old_width = instances.image_size
    x, y = size[1] / old_width, size[0] / old_height
    result = Instances(size)
    for name, value in instances.get_fields().items():
        if isinstance(value, Boxes):
            value = value.clone()
            value.scale(x, y)
        elif isinstance(value, PolygonMasks):
            value = PolygonMasks([[points * np.tile((x, y), len(points) // 2) for points in item] for item in value])
        elif isinstance(value, BitMasks):
            value = BitMasks(resize_pixels(value.tensor.to(torch.uint8), size, smooth=False).bool())
        elif isinstance(value, Keypoints):
            value = Keypoints(value.tensor * value.tensor.new_tensor((x, y, 1.0)))
        result.set(name, value)
    return result
