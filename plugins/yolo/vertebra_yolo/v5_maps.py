"""What the map of one level means in YOLOv5: which number belongs to which anchor of which cell, and the boxes there.

Source: the architecture as published with YOLOv5 (releases 6 and 7).
Letters: N images, K classes, A anchors a cell, L levels, H x W cells on a level, P matched pairs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vertebra_yolo.assign_ratio import RatioPairs

__all__ = [
    "COCO_ANCHORS",
    "anchor_rows",
    "by_row",
    "cells_of",
    "checked_anchors",
    "decode_boxes",
    "decoded_rows",
    "start_rarely",
]

COCO_ANCHORS = [  # width and height in pixels at 640, finest level first, as published
    [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
    [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
    [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
]


def decode_boxes(regression: Tensor, corners: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """What the network gives (..., 4) to boxes xyxy in input pixels, in float32.

    Args:
        corners: (..., 2) column and row of the cell.
        anchors: (..., 2) width and height in pixels.
        strides: pixels per cell, broadcast against (..., 1).
    """
    s = regression.float().sigmoid()
    center = (s[..., :2] * 2 - 0.5 + corners) * strides
    half = (s[..., 2:] * 2) ** 2 * anchors / 2
    return torch.cat((center - half, center + half), dim=-1)


def by_row(x: Tensor, num_anchors: int) -> Tensor:
    """A map (N, A * width, H, W) to (N, A, H, W, width)."""
    return x.unflatten(1, (num_anchors, -1)).permute(0, 1, 3, 4, 2)


def decoded_rows(maps: list[Tensor], anchors: Tensor, strides: Tensor) -> Tensor:
    """All anchors (N, R, 5 + K): center x, y, width, height in input pixels, objectness and class scores.

    Args:
        maps: (N, A * (5 + K), H, W) a level.
        anchors: (L, A, 2) width and height in pixels.
        strides: (L,) pixels per cell.
    """
    rows = []
    for x, sides, stride in zip(maps, anchors, strides, strict=True):
        corner = cells_of(x.shape[2], x.shape[3], x.device)[None, None]  # (1, 1, H, W, 2)
        x = by_row(x, len(sides)).float().sigmoid()
        center = (x[..., :2] * 2 - 0.5 + corner) * stride
        size = (x[..., 2:4] * 2) ** 2 * sides.view(1, -1, 1, 1, 2)
        rows.append(torch.cat((center, size, x[..., 4:]), dim=-1).flatten(1, 3))
    return torch.cat(rows, dim=1)


def anchor_rows(pairs: RatioPairs, size: Sequence[int], num_anchors: int) -> Tensor:
    """Rows (P,) of pairs of a level of `size` (H, W) in what `by_anchor` gives, its first two axes joined."""
    return ((pairs.image * size[0] + pairs.y) * size[1] + pairs.x) * num_anchors + pairs.anchor


def cells_of(height: int, width: int, device: torch.device) -> Tensor:
    """Column and row of every cell, (H, W, 2) float32."""
    ys, xs = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((xs, ys), dim=-1).float()


def checked_anchors(anchors: list[list[list[float]]], num_levels: int) -> Tensor:
    """(L, A, 2) float32."""
    if len(anchors) != num_levels:
        raise ValueError(
            f"YOLOv5Head has {num_levels} levels, but anchors for {len(anchors)}; give one list of [width, height] "
            "for each level, finest first"
        )
    pairs = [pair for level in anchors for pair in level]
    if len({len(level) for level in anchors}) != 1 or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
        raise ValueError(
            f"YOLOv5Head: anchors are {anchors}; each level needs the same number of [width, height], in pixels above 0"
        )
    return torch.tensor(anchors, dtype=torch.float32)


@torch.no_grad()
def start_rarely(conv: nn.Conv2d, stride: int, width: int) -> None:
    """Biases for an untrained head: objectness of 8 objects in an image of 640 pixels, each class 0.6 / K likely."""
    assert conv.bias is not None  # a convolution that predicts has one
    bias = conv.bias.view(-1, width)  # (A, 5 + K)
    bias[:, 4] += math.log(8 / (640 / stride) ** 2)
    bias[:, 5:] += math.log(0.6 / (width - 5 - 0.99999))
