"""The ways in which an image can be moved: each says where its pixels, points, outlines and boxes come to lie.

Pixel (i, j) covers [j, j+1) x [i, i+1), so a box that covers the image still does after any of these. Source of the
box and point formulas: Detectron2's transforms (fvcore.transforms), whose results they equal.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from vertebra.data.transforms.projective import map_points, warp_pixels
from vertebra.structures.resize import resize_pixels

__all__ = ["Crop", "Mirror", "Move", "Pad", "Projection", "QuarterTurn", "Resize", "Scaled"]


class Move(Protocol):
    """What moves an image and all that is drawn on it."""

    size: tuple[int, int]
    """(height, width) of the result in pixels."""
    matrix: np.ndarray
    """(3, 3): a point (x, y, 1) to its new place; NaN where no matrix says it, as the image is bent."""

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        """(C, H, W) to (C, *size) of the same type.

        Args:
            fill: value of pixels that come from outside.
            smooth: interpolate between pixels; otherwise no value is made up.
        """
        ...

    def points(self, points: np.ndarray) -> np.ndarray:
        """(..., 2), x and y in pixels, to their new places; a new array."""
        ...

    def outline(self, polygon: np.ndarray) -> np.ndarray:
        """(P, 2) closed polygon to the new one, which has more points where straight edges are bent."""
        ...

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) xyxy to the smallest upright boxes around them at their new places; a new array."""
        ...


class Scaled:
    """x' = scale * x + shift for each coordinate: what resizing, mirroring, cutting and padding do to points.

    Args:
        size: (height, width) of the result.
        scale, shift: (2,), for x and y.
    """

    def __init__(self, size: tuple[int, int], scale: np.ndarray, shift: np.ndarray) -> None:
        self.size = size
        self.scale, self.shift = scale, shift
        self.matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])

    def points(self, points: np.ndarray) -> np.ndarray:
        return points * self.scale + self.shift

    def outline(self, polygon: np.ndarray) -> np.ndarray:
        return self.points(polygon)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        return boxes * np.tile(self.scale, 2) + np.tile(self.shift, 2)


class Resize(Scaled):
    """Stretch from one (height, width) to another: bilinear with antialiasing, or the nearest pixel."""

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        super().__init__(new, np.array([new[1] / old[1], new[0] / old[0]]), np.zeros(2))

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return resize_pixels(pixels, self.size, smooth=smooth)


class Mirror(Scaled):
    """Mirror an image of (height, width) along axis 0 (left and right change places) or 1 (top and bottom)."""

    def __init__(self, size: tuple[int, int], axis: int) -> None:
        scale, shift = np.ones(2), np.zeros(2)
        scale[axis], shift[axis] = -1.0, size[1 - axis]
        super().__init__(size, scale, shift)
        self.axis = axis

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return pixels.flip(-2 if self.axis else -1)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        moved = super().boxes(boxes)
        moved[:, [self.axis, self.axis + 2]] = moved[:, [self.axis + 2, self.axis]]
        return moved


class Crop(Scaled):
    """Cut out a window that lies within the image. What is drawn outside it stays where it is, at negative places."""

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        super().__init__((height, width), np.ones(2), np.array([-left, -top], float))
        self.window = (..., slice(top, top + height), slice(left, left + width))

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return pixels[self.window]


class Pad(Scaled):
    """Add pixels around an image of (height, width)."""

    def __init__(self, old: tuple[int, int], top: int, left: int, bottom: int, right: int) -> None:
        size = old[0] + top + bottom, old[1] + left + right
        super().__init__(size, np.ones(2), np.array([left, top], float))
        self.padding = [left, right, top, bottom]

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return pad(pixels[None], self.padding, value=fill)[0]  # of a batch, the memory layout stays


class QuarterTurn:
    """Turn an image of (height, width) counterclockwise by a quarter of a circle; no pixel is lost."""

    def __init__(self, old: tuple[int, int]) -> None:
        self.size = old[1], old[0]
        self.matrix = np.array([[0.0, 1, 0], [-1, 0, old[1]], [0, 0, 1]])

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return pixels.transpose(-1, -2).flip(-2)

    def points(self, points: np.ndarray) -> np.ndarray:
        return np.stack((points[..., 1], self.size[0] - points[..., 0]), axis=-1)

    def outline(self, polygon: np.ndarray) -> np.ndarray:
        return self.points(polygon)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = boxes.T
        return np.stack((y0, self.size[0] - x1, y1, self.size[0] - x0), axis=1)


class Projection:
    """Map by a 3x3 matrix into an image of `size`, in perspective too: bilinear, or the nearest pixel.

    Args:
        matrix: from (x, y, 1) here to there, up to a factor.
    """

    def __init__(self, matrix: np.ndarray, size: tuple[int, int]) -> None:
        self.matrix, self.size = matrix, size

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        return warp_pixels(pixels, self.matrix, *self.size, fill, smooth=smooth)

    def points(self, points: np.ndarray) -> np.ndarray:
        return map_points(self.matrix, points)

    def outline(self, polygon: np.ndarray) -> np.ndarray:
        return self.points(polygon)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        corners = self.points(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])  # (N, 4, 2)
        return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
