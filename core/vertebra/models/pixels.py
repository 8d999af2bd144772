"""What the pixels of a model's inputs are, and that they are so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.models.batch import describe_input

__all__ = ["PixelType", "Pixels", "checked_image"]

PixelType = Literal["uint8", "uint16", "float32"]

_TENSORS = {"uint8": torch.uint8, "uint16": torch.int32, "float32": torch.float32}


@dataclass(frozen=True)
class Pixels:
    """How one image of the inputs is normalized.

    Args:
        mean, std: of each channel.
        dtype: of the values; 16 bits come as int32.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: PixelType = "uint8"

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(
                f"pixel_mean {list(self.mean)} and pixel_std {list(self.std)} need one value for each channel, "
                "pixel_std above 0"
            )

    @property
    def channels(self) -> int:
        return len(self.mean)


def checked_image(sample: Any, row: int, pixels: Pixels, name: str = "image") -> Tensor:
    """An image of an input, as a plain tensor (C, h, w).

    Raises:
        DataError: it is missing, or not what the model takes; names the input and says what to do.
    """
    where, channels = describe_input(sample, row), pixels.channels
    if not isinstance(sample, dict) or sample.get(name) is None:
        has = ", ".join(map(repr, sample)) if isinstance(sample, dict) else f"a {type(sample).__name__}"
        raise DataError(f"{where}: an input is a dict with the key {name!r}, but this one is/has {has}")
    image = sample[name]
    if not isinstance(image, Tensor):
        raise DataError(
            f"{where}: {name!r} is a {type(image).__name__}; it must be a {pixels.dtype} tensor ({channels}, height, "
            f"width). From an array (height, width, {channels}): torch.from_numpy(array).permute(2, 0, 1)"
        )
    if image.dim() != 3 or image.shape[0] != channels or image.numel() == 0:
        turned = image.dim() == 3 and image.shape[-1] == channels
        colors = "RGB, " if channels == 3 else ""
        raise DataError(
            f"{where}: {name!r} has shape {tuple(image.shape)}; it must be ({channels}, height, width)"
            + (": image.permute(2, 0, 1) turns it" if turned else f", {colors}without a batch dimension, not empty")
        )
    if pixels.dtype == "uint8" and image.is_floating_point():
        highest = float(image.amax())
        if not 1 < highest < 256:
            raise DataError(
                f"{where}: {name!r} is {image.dtype} with values up to {highest:g}; values must run from 0 to 255, the "
                "model normalizes them. For an image in 0..1: (image * 255).round().to(torch.uint8)"
            )
    elif image.dtype != _TENSORS[pixels.dtype] and not (pixels.dtype != "uint8" and image.is_floating_point()):
        expected = "uint8, values 0 to 255" if pixels.dtype == "uint8" else str(_TENSORS[pixels.dtype])
        raise DataError(f"{where}: {name!r} is {image.dtype}; it must be {expected}")
    return image.as_subclass(Tensor)
