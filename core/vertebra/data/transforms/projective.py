"""Projective maps of pixels and points, on the CPU. Pixel (i, j) covers [j, j+1) x [i, i+1)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["map_points", "warp_pixels"]


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2), x and y, through a 3x3 matrix."""
    mapped = points @ matrix[:2, :2].T + matrix[:2, 2]
    if (matrix[2, :2] != 0).any() or matrix[2, 2] != 1:
        mapped = mapped / (points @ matrix[2, :2] + matrix[2, 2])[..., None].clip(min=1e-9)
    return mapped


def warp_pixels(pixels: Tensor, matrix: np.ndarray, height: int, width: int, value: float, *, smooth: bool) -> Tensor:
    """(C, H, W) through a 3x3 matrix to (C, height, width) of the same type.

    Args:
        matrix: from (x, y, 1) of the input to that of the output, up to a factor.
        value: of pixels that come from outside the input.
        smooth: bilinear, for uint8 and float32; otherwise the nearest pixel, so that no value is made up.
    """
    back = np.linalg.inv(matrix)
    back = (back / back[2, 2]).reshape(-1)
    affine = bool(back[6] == 0 and back[7] == 0)
    method = Image.Transform.AFFINE if affine else Image.Transform.PERSPECTIVE
    data = tuple(back[:6] if affine else back[:8])
    resample = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST

    def one(plane: np.ndarray, fill: float | tuple[int, ...]) -> np.ndarray:
        return np.array(Image.fromarray(plane).transform((width, height), method, data, resample, fillcolor=fill))

    if pixels.shape[0] == 3 and pixels.dtype == torch.uint8:
        warped = one(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), (int(value),) * 3)
        return torch.from_numpy(warped).permute(2, 0, 1)  # channels stay last in memory
    planes = pixels.numpy()
    if planes.dtype not in (np.uint8, np.float32):  # what Pillow has single channels of; it cuts means of int32 off
        planes = planes.astype(np.float32 if smooth else np.int32)
    fill = value if planes.dtype == np.float32 else int(value)
    result = np.empty((len(planes), height, width), pixels.numpy().dtype)
    for plane, slot in zip(planes, result, strict=True):
        warped = one(np.ascontiguousarray(plane), fill)
        slot[:] = warped.round() if warped.dtype != slot.dtype else warped
    return torch.from_numpy(result)
