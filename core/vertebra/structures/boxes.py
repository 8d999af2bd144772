"""`Boxes`: the boxes of one image as a tensor (N, 4), with Detectron2's names and meaning.

A box is `xyxy` in pixels, end exclusive: (x0, y0, x1, y1) has the width x1 - x0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Boxes", "clip_to_size"]


class Boxes:
    """Boxes of one image, float32, on any device.

    Args:
        tensor: (N, 4) `xyxy`: a tensor, or anything `torch.as_tensor` takes. Any empty input becomes (0, 4).

    Attributes:
        tensor: (N, 4) float32.
    """

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        tensor = torch.as_tensor(tensor).to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.ndim != 2 or tensor.shape[-1] != 4:
            raise ValueError(f"Boxes takes an (N, 4) tensor of x0, y0, x1, y1, got shape {tuple(tensor.shape)}")
        self.tensor = tensor

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """All boxes of a list of `Boxes` in one; an empty list gives no boxes."""
        for boxes in boxes_list:
            if not isinstance(boxes, Boxes):
                raise ValueError(f"Boxes.cat takes a list of Boxes, found {type(boxes).__name__} in it")
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def clone(self) -> Boxes:
        """A copy that shares no memory."""
        return Boxes(self.tensor.clone())

    def to(self, *args: Any, **kwargs: Any) -> Boxes:
        """The boxes on another device; takes what `Tensor.to` takes. The type stays float32."""
        return Boxes(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        """(N,) in square pixels; negative if exactly one pair of corners is swapped."""
        return (self.tensor[:, 2] - self.tensor[:, 0]) * (self.tensor[:, 3] - self.tensor[:, 1])

    def clip(self, box_size: tuple[int, int]) -> None:
        """Moves what lies outside the image onto its border, in place. NaN stays NaN.

        Args:
            box_size: (height, width) of the image.
        """
        height, width = box_size
        self.tensor = clip_to_size(self.tensor, height, width)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool: width and height are both more than `threshold` pixels."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """(N,) bool: no edge lies `boundary_threshold` pixels or more outside the image.

        As in Detectron2 the far edge has to be less than the size: a box that ends at the border is not inside.

        Args:
            box_size: (height, width) of the image.
        """
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        near, far_x, far_y = -boundary_threshold, width + boundary_threshold, height + boundary_threshold
        return (x0 >= near) & (y0 >= near) & (x1 < far_x) & (y1 < far_y)

    def get_centers(self) -> Tensor:
        """(N, 2): x, y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiplies x and y coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        """`boxes[i]` is a `Boxes` of one box; slices, bool masks and index tensors select rows."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        chosen = self.tensor[item]
        if chosen.ndim != 2:
            raise IndexError(f"Boxes[{item}] selects no rows: it gives shape {tuple(chosen.shape)}, wanted (n, 4)")
        return Boxes(chosen)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (4,) at a time."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def clip_to_size(boxes: Tensor, height: int, width: int) -> Tensor:
    """`xyxy` boxes (..., 4) with what lies outside a height x width image moved onto its border; a new tensor."""
    x0, y0, x1, y1 = boxes.unbind(dim=-1)
    return torch.stack(
        (x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)),
        dim=-1,
    )
