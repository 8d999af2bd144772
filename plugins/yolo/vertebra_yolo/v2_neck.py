"""The end of YOLOv2: three convolutions, and a passthrough that brings finer features along.

Source: Redmon & Farhadi, "YOLO9000: Better, Faster, Stronger", arXiv:1612.08242, section 2, "Fine-Grained Features" and
"Training for detection", with the layers of Darknet's yolov2.cfg.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Neck, ShapeSpec, finest_first
from vertebra.models.layers import NormName
from vertebra_yolo.darknet import DarknetConv

__all__ = ["YOLOv2Neck", "cells_to_channels"]


class YOLOv2Neck(Neck):
    """One level of the coarse feature's stride (`p5` for 32) with `width` channels.

    Args:
        in_features: two features, one of twice the stride of the other; None: all.
        norm: after each convolution, see `get_norm`.
        width: channels of the three 3x3 convolutions.
        passthrough: channels of the 1x1 convolution on the finer feature, before its cells become channels.
        reorg: how 2x2 cells become channels: as the paper says (`space_to_depth`), or in the order of Darknet's layer
            `[reorg]`, which mixes cells further apart. Weights of Darknet need the latter.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        in_features: Sequence[str] | None = None,
        norm: NormName = "bn",
        width: int = 1024,
        passthrough: int = 64,
        reorg: Literal["space_to_depth", "darknet"] = "space_to_depth",
    ) -> None:
        super().__init__()
        self.in_features = finest_first("YOLOv2Neck", input_shape, in_features, doubling=True)
        if len(self.in_features) != 2:
            raise ValueError(f"YOLOv2Neck takes two features, got {', '.join(self.in_features)}; choose by in_features")
        if passthrough < 4 or passthrough % 4 or width < 1:
            raise ValueError(f"YOLOv2Neck: width {width} must be at least 1, passthrough {passthrough} a multiple of 4")
        if reorg not in ("space_to_depth", "darknet"):
            raise ValueError(f"YOLOv2Neck: reorg is {reorg!r}; it must be 'space_to_depth' or 'darknet'")
        fine, coarse = (input_shape[name] for name in self.in_features)
        self.level = f"p{int(math.log2(coarse.stride))}"
        self.reorg = reorg
        self.deep = nn.Sequential(
            DarknetConv(coarse.channels, width, 3, norm=norm), DarknetConv(width, width, 3, norm=norm)
        )
        self.passthrough = DarknetConv(fine.channels, passthrough, 1, norm=norm)
        self.output = DarknetConv(4 * passthrough + width, width, 3, norm=norm)
        self._output_shape = {self.level: ShapeSpec(channels=width, stride=coarse.stride)}

    @property
    def size_divisibility(self) -> int:
        """The coarse stride, so that the finer map is exactly twice the coarse one."""
        return self._output_shape[self.level].stride

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._output_shape)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H / s, W / s)} to {level: (N, width, H / 32, W / 32)}."""
        fine, coarse = (features[name] for name in self.in_features)
        passed = cells_to_channels(self.passthrough(fine), darknet=self.reorg == "darknet")
        return {self.level: self.output(torch.cat((passed, self.deep(coarse)), dim=1))}

    def darknet_order(self) -> list[list[DarknetConv]]:
        """The convolutions as a Darknet file lists them."""
        return [[*self.deep, self.passthrough, self.output]]


def cells_to_channels(x: Tensor, *, darknet: bool = False) -> Tensor:
    """2x2 cells become channels: (N, C, 2H, 2W) to (N, 4C, H, W).

    Args:
        darknet: Darknet's `[reorg]` with stride 2. It regards the memory of the map as one of C / 4 channels and twice
            the height and width, moves 2x2 cells of that to channels, and regards the result as (4C, H, W).
    """
    if not darknet:
        return F.pixel_unshuffle(x, 2)
    n, c, h, w = x.shape
    seen = x.reshape(n, c // 4, h, 2, w, 2)  # rows and columns of the larger map, in pairs
    moved = seen.permute(0, 3, 5, 1, 2, 4)  # (N, 2, 2, C / 4, h, w): the place in the pair comes first
    return moved.reshape(n, 4 * c, h // 2, w // 2)
