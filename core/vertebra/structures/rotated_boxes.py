"""`RotatedBoxes`: the rotated boxes of one image as a tensor (N, 5), with Detectron2's names and meaning.

A box is (center x, center y, width, height, angle): pixels, and degrees counterclockwise as one sees the image, whose
y axis points down. At angle 0 the width lies along x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RotatedBoxes", "corners_of", "map_rotated"]


class RotatedBoxes:
    """Rotated boxes of one image, float32, on any device.

    Args:
        tensor: (N, 5): a tensor, or anything `torch.as_tensor` takes. Any empty input becomes (0, 5).

    Attributes:
        tensor: (N, 5) float32.
    """

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        tensor = torch.as_tensor(tensor).to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 5)
        if tensor.ndim != 2 or tensor.shape[-1] != 5:
            raise ValueError(
                f"RotatedBoxes takes an (N, 5) tensor of center x, center y, width, height, angle, "
                f"got shape {tuple(tensor.shape)}"
            )
        self.tensor = tensor

    @classmethod
    def cat(cls, boxes_list: Sequence[RotatedBoxes]) -> RotatedBoxes:
        """All boxes of a list of `RotatedBoxes` in one; an empty list gives no boxes."""
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 5))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def clone(self) -> RotatedBoxes:
        """A copy that shares no memory."""
        return RotatedBoxes(self.tensor.clone())

    def to(self, *args: Any, **kwargs: Any) -> RotatedBoxes:
        """The boxes on another device; takes what `Tensor.to` takes. The type stays float32."""
        return RotatedBoxes(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        """(N,) in square pixels."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Brings the angles into [-180, 180), in place."""
        self.tensor[:, 4] = torch.remainder(self.tensor[:, 4] + 180, 360) - 180

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Cuts boxes at the image's border, in place, whose angle is within the threshold (degrees) of 0.

        The others stay, as what is left of them would not be a rotated box. Angles are normalized.

        Args:
            box_size: (height, width) of the image.
        """
        height, width = box_size
        self.normalize_angles()
        near = self.tensor[:, 4].abs() <= clip_angle_threshold
        center, half = self.tensor[near, :2], self.tensor[near, 2:4] / 2
        limits = center.new_tensor([width, height])
        low, high = (center - half).clamp(min=0).minimum(limits), (center + half).clamp(min=0).minimum(limits)
        self.tensor[near, :4] = torch.cat(((low + high) / 2, torch.minimum(2 * half, high - low)), dim=1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool: width and height are both more than `threshold` pixels."""
        return (self.tensor[:, 2:4] > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """(N,) bool: the upright box around it lies within the image, by the rule of `Boxes.inside_box`.

        Args:
            box_size: (height, width) of the image.
        """
        height, width = box_size
        corners = self.corners()
        low, high = corners.amin(dim=1), corners.amax(dim=1)
        near = (low >= -boundary_threshold).all(dim=1)
        return near & (high[:, 0] < width + boundary_threshold) & (high[:, 1] < height + boundary_threshold)

    def get_centers(self) -> Tensor:
        """(N, 2): x, y."""
        return self.tensor[:, :2]

    def corners(self) -> Tensor:
        """(N, 4, 2): x, y of the corners, in the order of an upright box's upper left, upper right, lower right, lower
        left."""
        return corners_of(self.tensor)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiplies x and y coordinates, in place; for unequal factors see `map_rotated`."""
        self.tensor[:] = map_rotated(self.tensor, self.tensor.new_tensor([[scale_x, 0], [0, scale_y]]))

    def __getitem__(self, item: int | slice | Tensor) -> RotatedBoxes:
        """`boxes[i]` is a `RotatedBoxes` of one box; slices, bool masks and index tensors select rows."""
        if isinstance(item, int):
            return RotatedBoxes(self.tensor[item].view(1, 5))
        chosen = self.tensor[item]
        if chosen.ndim != 2:
            raise IndexError(f"RotatedBoxes[{item}] selects no rows: it gives shape {tuple(chosen.shape)}")
        return RotatedBoxes(chosen)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (5,) at a time."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"RotatedBoxes({self.tensor})"


def map_rotated(boxes: Tensor, linear: Tensor) -> Tensor:
    """(N, 5) rotated boxes under a linear map (2, 2) of x and y.

    A map that scales directions differently makes a parallelogram of it. Detectron2's rule: each side gets the
    length that it has there, and the angle is that of the height's direction, so that the sides stay at right angles.
    """
    angle = torch.deg2rad(boxes[:, 4])
    cos, sin = angle.cos(), angle.sin()
    (a, b), (c, d) = linear.unbind()  # no matrix product: autocast would round it
    along = a * cos - b * sin, c * cos - d * sin  # the width's direction; y points down
    across = a * sin + b * cos, c * sin + d * cos
    x, y, width, height, _ = boxes.unbind(dim=1)
    sides = width * torch.hypot(*along), height * torch.hypot(*across)
    return torch.stack((a * x + b * y, c * x + d * y, *sides, torch.rad2deg(torch.atan2(*across))), dim=1)


def corners_of(boxes: Tensor) -> Tensor:
    """(..., 5) rotated boxes to their corners (..., 4, 2), see `RotatedBoxes.corners`."""
    angle = torch.deg2rad(boxes[..., 4])
    cos, sin = angle.cos(), angle.sin()
    along = torch.stack((cos, -sin), dim=-1) * boxes[..., 2:3] / 2  # y points down
    across = torch.stack((sin, cos), dim=-1) * boxes[..., 3:4] / 2
    offsets = (-along - across, along - across, along + across, across - along)
    return boxes[..., None, :2] + torch.stack(offsets, dim=-2)
