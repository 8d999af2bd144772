"""Pixels and points under a 3x3 matrix, affine or perspective."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["map_points", "warp_pixels"]


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2), x and y, to where the matrix puts them."""
    mapped = points @ matrix[:2, :2].T + matrix[:2, 2]
    depth = points @ matrix[2, :2] + matrix[2, 2]
    return mapped / depth[..., None]


def warp_pixels(pixels: Tensor, matrix: np.ndarray, height: int, width: int, value: int, *, smooth: bool) -> Tensor:
    """Pixels (C, H, W) of any type to (C, height, width): bilinear if `smooth`, else the nearest; `value` from outside.

    Args:
        matrix: from pixels' (x, y, 1) to the result's, up to a factor.
    """
    back = np.linalg.inv(matrix)
    ys, xs = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    source = torch.from_numpy(map_points(back, np.stack((xs, ys), axis=-1)).astype(np.float32))  # (h, w, 2)
    grid = source * torch.tensor([2 / pixels.shape[-1], 2 / pixels.shape[-2]]) - 1
    mode = "bilinear" if smooth else "nearest"
    looked_up = F.grid_sample(pixels[None].float() - value, grid[None], mode=mode, align_corners=False)[0] + value
    return looked_up.round_().to(pixels.dtype)
