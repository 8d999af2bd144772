"""`ImageList`: images of different sizes as one padded tensor. Detectron2's meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["ImageList", "padded_size"]


class ImageList:
    """Images of different sizes, padded at the right and the bottom to one size.

    Args:
        tensor: (N, ..., H, W), padding included.
        image_sizes: (h, w) of each image without its padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: Sequence[tuple[int, int]]) -> None:
        if len(image_sizes) != tensor.shape[0]:
            raise ValueError(f"ImageList: {tensor.shape[0]} images, but {len(image_sizes)} image sizes")
        self.tensor = tensor
        self.image_sizes = [(int(height), int(width)) for height, width in image_sizes]

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Images, each (..., h, w) with the same leading dimensions, as one list.

        Args:
            size_divisibility: the common height and width are rounded up to multiples of it; 0 or 1: as they are.
            pad_value: what the padding is filled with.
            padding_constraints: `size_divisibility` here overrides the argument; `square_size` > 0 pads every
                image to that height and width.
        Raises:
            ValueError: no images, other leading dimensions, or an image that is larger than the square.
        """
        if len(tensors) == 0:
            raise ValueError("ImageList.from_tensors needs at least one image, got none")
        for index, image in enumerate(tensors):
            if image.shape[:-2] != tensors[0].shape[:-2] or image.ndim < 2:
                raise ValueError(
                    f"ImageList.from_tensors: image {index} has shape {tuple(image.shape)}, image 0"
                    f" {tuple(tensors[0].shape)}; all but height and width must agree"
                )
        constraints = dict(padding_constraints or {})
        size_divisibility = constraints.pop("size_divisibility", size_divisibility)
        square_size = constraints.pop("square_size", 0)
        if constraints:
            raise ValueError(
                f"ImageList.from_tensors: unknown padding constraints {', '.join(constraints)};"
                " there are size_divisibility and square_size"
            )
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        height, width = padded_size(sizes, size_divisibility, square_size)
        padded = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), pad_value)
        for image, slot in zip(tensors, padded, strict=True):
            slot[..., : image.shape[-2], : image.shape[-1]].copy_(image)
        return ImageList(padded, sizes)

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Image number `index` without its padding, (..., h, w); a view."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def __repr__(self) -> str:
        return f"ImageList(tensor of shape {tuple(self.tensor.shape)}, image_sizes={self.image_sizes})"


def padded_size(sizes: Sequence[tuple[int, int]], size_divisibility: int = 0, square_size: int = 0) -> tuple[int, int]:
    """(height, width) that all images fit in, rounded up to multiples of `size_divisibility`.

    Args:
        sizes: (height, width) of each image.
        square_size: where more than 0, height and width before the rounding, whatever the images.
    """
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    if square_size > 0:
        if max(height, width) > square_size:
            raise ValueError(f"square_size is {square_size}, but an image is {height} x {width}; resize it first")
        height = width = square_size
    if size_divisibility > 1:
        height, width = (-(-side // size_divisibility) * size_divisibility for side in (height, width))
    return height, width
