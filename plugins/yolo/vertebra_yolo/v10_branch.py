"""One branch of the YOLOv10 head: boxes as distributions and class scores for every cell of every level.

Source: Wang et al., "YOLOv10", arXiv:2405.14458, section 3.2: the classification branch is light, two depthwise
separable convolutions; the regression branch has two plain 3x3 ones.
Letters: N images, K classes, B bins a side, R cells over all levels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vertebra.models import ShapeSpec
from vertebra.models.layers import fill_bias
from vertebra_yolo.csp_blocks import ConvAct

__all__ = ["Branch", "BranchRaw", "Cells", "by_cell", "make_cells"]


class BranchRaw(NamedTuple):
    """One tensor a level, finest level first."""

    boxes: list[Tensor]
    """(N, 4 * B, H_l, W_l): bins of the distances to the left, upper, right and lower side."""
    logits: list[Tensor]
    """(N, K, H_l, W_l): class scores before the sigmoid."""


class Cells(NamedTuple):
    """The R cells of all levels, row by row, level by level."""

    points: Tensor
    """(R, 2) x and y of the centers in cells of their own level."""
    strides: Tensor
    """(R, 1) pixels per cell."""


class Branch(nn.Module):
    """Two towers a level. Widths as in the paper's models: from the channels of the finest level."""

    def __init__(self, shapes: list[ShapeSpec], num_classes: int, num_bins: int) -> None:
        super().__init__()
        finest = shapes[0].channels
        for_boxes = max(16, finest // 4, 4 * num_bins)
        for_classes = max(finest, min(num_classes, 100))
        self.boxes = nn.ModuleList(_box_tower(shape.channels, for_boxes, num_bins) for shape in shapes)
        self.classes = nn.ModuleList(_class_tower(shape, for_classes, num_classes) for shape in shapes)

    def forward(self, maps: list[Tensor]) -> BranchRaw:
        """(N, C_l, H_l, W_l) a level to what the head decodes."""
        return BranchRaw(
            boxes=[tower(x) for tower, x in zip(self.boxes, maps, strict=True)],
            logits=[tower(x) for tower, x in zip(self.classes, maps, strict=True)],
        )


def by_cell(levels: list[Tensor]) -> Tensor:
    """Maps (N, C, H_l, W_l) to (N, R, C), in the order of `Cells`."""
    return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in levels], dim=1)


def make_cells(levels: list[Tensor], strides: list[int]) -> Cells:
    """Of maps (N, C, H_l, W_l)."""
    points, pixels = [], []
    for x, stride in zip(levels, strides, strict=True):
        height, width = x.shape[2:]
        ys, xs = (torch.arange(n, device=x.device, dtype=torch.float32) + 0.5 for n in (height, width))
        grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).view(-1, 2)  # x before y
        points.append(grid)
        pixels.append(torch.full_like(grid[:, :1], stride))
    return Cells(torch.cat(points), torch.cat(pixels))


def _box_tower(channels: int, hidden: int, num_bins: int) -> nn.Sequential:
    hidden_layers = ConvAct(channels, hidden, 3), ConvAct(hidden, hidden, 3)
    last = nn.Conv2d(hidden, 4 * num_bins, kernel_size=1)
    fill_bias(last, 1.0)
    return nn.Sequential(*hidden_layers, last)


def _class_tower(shape: ShapeSpec, hidden: int, num_classes: int) -> nn.Sequential:
    hidden_layers = (
        ConvAct(shape.channels, shape.channels, 3, groups=shape.channels),
        ConvAct(shape.channels, hidden),
        ConvAct(hidden, hidden, 3, groups=hidden),
        ConvAct(hidden, hidden),
    )
    last = nn.Conv2d(hidden, num_classes, kernel_size=1)
    fill_bias(last, math.log(5 / num_classes / (640 / shape.stride) ** 2))  # 5 objects in 640
    return nn.Sequential(*hidden_layers, last)
