"""Transforms that bend or turn the image: each pixel of the result is looked up at some place of the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = ["ElasticDeform", "RandomQuarterTurn", "RandomRotation"]

Border = Literal["mirror", "fill"]

_LONGEST = 8.0  # pixels between two points of a polygon or a box's edge that is bent


class ElasticDeform(Transform):
    """Bend the image smoothly: random displacements on a coarse grid, bicubic in between.

    Source: Ronneberger et al., "U-Net", arXiv:1505.04597, section 3.1: a 3 x 3 grid and a deviation of 10 pixels, for
    images of 512 x 512. For training only: nothing maps predictions back.

    Args:
        sigma: standard deviation of the displacements in pixels; at most a quarter of the distance between two points
            of the grid, so that small images do not fold.
        grid: points in each direction, those on the image's border among them.
        prob: how likely an image is bent at all.
        border: `mirror` continues the image, labels and masks beyond the border by their mirror image, `fill` by
            `pad_value`, with labels of no class.
        pad_value: gray value 0..255.
    """

    def __init__(
        self, sigma: float = 10.0, grid: int = 3, prob: float = 1.0, border: Border = "mirror", pad_value: int = 124
    ) -> None:
        if sigma < 0 or grid < 2 or not 0 <= prob <= 1:
            raise ValueError(
                f"ElasticDeform needs sigma of at least 0, grid of at least 2 and prob in [0, 1], got {sigma}, {grid} "
                f"and {prob}"
            )
        self.sigma = sigma
        self.grid = grid
        self.prob = prob
        self.border = _checked(border, "ElasticDeform")
        self.pad_value = pad_value

    def refuses(self, field: FieldSection) -> str | None:
        return "a rotated box that is bent is not one any more" if field.geometry == "rotated_box" else None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        height, width = sample.size
        sigma = min(self.sigma, (min(height, width) - 1) / (self.grid - 1) / 4)
        coarse = torch.from_numpy(rng.normal(0.0, 1.0, (2, self.grid, self.grid)) * sigma).float()
        moved = _bicubic(height, self.grid) @ coarse @ _bicubic(width, self.grid).T  # (2, H, W), x and y
        source = _pixel_centers(height, width) + moved
        field = moved.numpy()

        def place_of(points: np.ndarray) -> np.ndarray:
            """Where points (P, 2) of the image come to lie: q with q + displacement(q) = p."""
            found = points
            for _ in range(12):  # each halves the error at least, as the field is that smooth
                columns, rows = found.T.round().astype(int)
                found = points - field[:, rows.clip(0, height - 1), columns.clip(0, width - 1)].T
            return found

        bend = _Bend(source, place_of, np.full((3, 3), np.nan), self.border)
        return sample.move(bend, self.pad_value).boxes_from_masks().clip()


class RandomRotation(Transform):
    """Turn the image about its center by a random angle; its size stays. For training only.

    Args:
        degrees: the angle is uniform between -degrees and degrees, or between the two numbers of a list.
        prob: how likely an image is turned at all.
        border: `fill` puts `pad_value` beyond the image's border and labels of no class, `mirror` its mirror image.
        pad_value: gray value 0..255.
    """

    def __init__(
        self,
        degrees: float | list[float] = 15.0,
        prob: float = 1.0,
        border: Border = "fill",
        pad_value: int = 124,
    ) -> None:
        low, high = (-degrees, degrees) if isinstance(degrees, (int, float)) else degrees
        if low > high or not 0 <= prob <= 1:
            raise ValueError(
                f"RandomRotation needs degrees of at least 0 or [lowest, highest], and prob in [0, 1], got {degrees} "
                f"and {prob}"
            )
        self.degrees = (float(low), float(high))
        self.prob = prob
        self.border = _checked(border, "RandomRotation")
        self.pad_value = pad_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        angle = np.deg2rad(rng.uniform(*self.degrees))
        height, width = sample.size
        center = np.array([width / 2, height / 2])
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # y points down
        shift = center - turn @ center
        back = torch.from_numpy(turn.T).float()
        middle = torch.from_numpy(center).float()[:, None, None]
        source = torch.einsum("ij,jhw->ihw", back, _pixel_centers(height, width) - middle) + middle
        matrix = np.vstack((np.column_stack((turn, shift)), [0, 0, 1]))
        bend = _Bend(source, lambda points: points @ turn.T + shift, matrix, self.border)
        return sample.move(bend, self.pad_value).boxes_from_masks().clip()


class RandomQuarterTurn(Transform):
    """Turn the image by 0, 90, 180 or 270 degrees, each as likely. Height and width may change places.

    Args:
        prob: how likely an image is turned at all.
    """

    def __init__(self, prob: float = 1.0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"RandomQuarterTurn: prob is {prob}, expected a number between 0 and 1")
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        return sample.turn(int(rng.integers(0, 4)))


class _Bend:
    """Each pixel is looked up at `source` (2, H, W), x and y; coordinates go to `place_of` them, (P, 2) each.

    Boxes become those around their bent edges.
    """

    def __init__(
        self, source: Tensor, place_of: Callable[[np.ndarray], np.ndarray], matrix: np.ndarray, border: Border
    ) -> None:
        self.size = source.shape[-2], source.shape[-1]
        self.matrix = matrix
        self.border = border
        self.place_of = place_of
        height, width = self.size
        self.grid = source.permute(1, 2, 0) * torch.tensor([2 / width, 2 / height]) - 1  # -1 to 1 between the borders

    def pixels(self, pixels: Tensor, fill: float, smooth: bool) -> Tensor:
        """Beyond the border mirrored, or `fill`."""
        exact = torch.float32 if pixels.dtype == torch.uint8 else torch.float64
        grid, mode = self.grid[None].to(exact), "bilinear" if smooth else "nearest"
        if self.border == "mirror":
            found = F.grid_sample(pixels.to(exact)[None], grid, mode, "reflection", align_corners=False)
        elif pixels.dtype == torch.uint8 or (smooth and math.isfinite(fill)):
            found = F.grid_sample(pixels.to(exact)[None] - fill, grid, mode, "zeros", align_corners=False) + fill
        else:
            inside = (self.grid.abs() <= 1).all(dim=-1)
            found = F.grid_sample(pixels.to(exact)[None], grid, mode, "border", align_corners=False)
            found = torch.where(inside, found, fill)
        if pixels.is_floating_point():
            return found[0].to(pixels.dtype)
        limits = torch.iinfo(pixels.dtype)
        return found[0].round_().clamp_(limits.min, limits.max).to(pixels.dtype)

    def points(self, points: np.ndarray) -> np.ndarray:
        return self.place_of(points.reshape(-1, 2)).reshape(points.shape)

    def outline(self, polygon: np.ndarray) -> np.ndarray:
        return self.place_of(_dense(polygon))

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        moved = boxes.copy()
        for row, (x0, y0, x1, y1) in enumerate(boxes):
            edges = self.place_of(_dense(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])))
            moved[row] = np.concatenate((edges.min(axis=0), edges.max(axis=0)))
        return moved


def _dense(polygon: np.ndarray) -> np.ndarray:
    """(P, 2) with further points on its long edges."""
    following = np.roll(polygon, -1, axis=0)
    counts = np.maximum(np.ceil(np.linalg.norm(following - polygon, axis=1) / _LONGEST), 1).astype(int)
    steps = np.concatenate([np.arange(count) / count for count in counts])[:, None]
    starts, ends = np.repeat(polygon, counts, axis=0), np.repeat(following, counts, axis=0)
    return starts + (ends - starts) * steps


def _bicubic(length: int, points: int) -> Tensor:
    """(length, points): weight of each of `points` values, the first and the last at the borders, at each pixel."""
    return F.interpolate(torch.eye(points)[None, :, :, None], (length, 1), mode="bicubic", align_corners=True)[
        0, :, :, 0
    ].T


def _pixel_centers(height: int, width: int) -> Tensor:
    """(2, H, W): x and y of each pixel's center."""
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((xs, ys))


def _checked(border: Border, who: str) -> Border:
    if border not in ("mirror", "fill"):
        raise ValueError(f"{who}: border is {border!r}, expected 'mirror' or 'fill'")
    return border
