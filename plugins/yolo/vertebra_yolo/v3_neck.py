"""The necks of YOLOv3 and YOLOv3-tiny: from the coarsest map upwards, each finer one joined by concatenation.

Source: Redmon & Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767, section 2.3, with the layers of
Darknet's yolov3.cfg and yolov3-tiny.cfg. What the necks return is what the head's last 1x1 convolution sees.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Neck, ShapeSpec, finest_first
from vertebra.models.layers import NormName
from vertebra_yolo.darknet import DarknetConv

__all__ = ["YOLOv3Neck", "YOLOv3TinyNeck"]


class YOLOv3Neck(Neck):
    """Levels `p3`, `p4`, `p5` (for strides 8, 16, 32), each with as many channels as the backbone's.

    At each level five convolutions (1x1 and 3x3 by turns) make half the channels; from there one 3x3 convolution goes
    to the head, and a 1x1 convolution, doubled in size, joins the next finer map.

    Args:
        in_features: features to use, each of twice the stride of the one before; None: all.
        norm: after each convolution, see `get_norm`.
        channels: of the levels, finest first, even numbers; None: as many as the backbone's.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        in_features: Sequence[str] | None = None,
        norm: NormName = "bn",
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_features = finest_first("YOLOv3Neck", input_shape, in_features, doubling=True)
        inputs = [input_shape[name] for name in self.in_features]
        widths = [spec.channels for spec in inputs] if channels is None else list(channels)
        if len(widths) != len(inputs) or any(width < 2 or width % 2 for width in widths):
            raise ValueError(
                f"YOLOv3Neck: channels {widths} must be one even number for each of the {len(inputs)} features "
                f"({', '.join(self.in_features)})"
            )
        self.levels = level_names(inputs)
        self.joins, self.branches, self.outputs = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        below = None  # channels of the coarser level's branch
        for level, spec, width in reversed(list(zip(self.levels, inputs, widths, strict=True))):
            half = width // 2
            in_channels = spec.channels
            if below is not None:
                self.joins[level] = DarknetConv(below, half, 1, norm=norm)
                in_channels += half
            self.branches[level] = nn.Sequential(
                DarknetConv(in_channels, half, 1, norm=norm),
                DarknetConv(half, width, 3, norm=norm),
                DarknetConv(width, half, 1, norm=norm),
                DarknetConv(half, width, 3, norm=norm),
                DarknetConv(width, half, 1, norm=norm),
            )
            self.outputs[level] = DarknetConv(half, width, 3, norm=norm)
            below = half
        self._output_shape = {
            level: ShapeSpec(channels=width, stride=spec.stride)
            for level, width, spec in zip(self.levels, widths, inputs, strict=True)
        }

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride, so that each map is exactly twice the next."""
        return max(spec.stride for spec in self._output_shape.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._output_shape)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H / s, W / s)} to {level: (N, C', H / s, W / s)}, finest first."""
        found: dict[str, Tensor] = {}
        branch = None
        for name, level in zip(reversed(self.in_features), reversed(self.levels), strict=True):
            x = features[name]
            if branch is not None:
                x = torch.cat((double(self.joins[level](branch)), x), dim=1)
            branch = self.branches[level](x)
            found[level] = self.outputs[level](branch)
        return {level: found[level] for level in self.levels}

    def darknet_order(self) -> list[list[DarknetConv]]:
        """The convolutions as a Darknet file lists them: one list for each level, coarsest first."""
        order = []
        for level in reversed(self.levels):
            parts = [self.joins[level]] if level in self.joins else []
            parts += [self.branches[level], self.outputs[level]]
            order.append([layer for part in parts for layer in part.modules() if isinstance(layer, DarknetConv)])
        return order


class YOLOv3TinyNeck(Neck):
    """Levels `p4` and `p5`, by four convolutions in all.

    Args:
        in_features: two features, one of twice the stride of the other; None: all.
        norm: after each convolution, see `get_norm`.
        width: channels of the coarse branch; its level has twice as many, the finer one as many.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        in_features: Sequence[str] | None = None,
        norm: NormName = "bn",
        width: int = 256,
    ) -> None:
        super().__init__()
        self.in_features = finest_first("YOLOv3TinyNeck", input_shape, in_features, doubling=True)
        if len(self.in_features) != 2 or width < 2 or width % 2:
            raise ValueError(
                f"YOLOv3TinyNeck takes two features and an even width, got {', '.join(self.in_features)} and {width}"
            )
        fine, coarse = (input_shape[name] for name in self.in_features)
        self.levels = level_names([fine, coarse])
        self.branch = DarknetConv(coarse.channels, width, 1, norm=norm)
        self.output_coarse = DarknetConv(width, 2 * width, 3, norm=norm)
        self.join = DarknetConv(width, width // 2, 1, norm=norm)
        self.output_fine = DarknetConv(width // 2 + fine.channels, width, 3, norm=norm)
        shapes = (ShapeSpec(channels=width, stride=fine.stride), ShapeSpec(channels=2 * width, stride=coarse.stride))
        self._output_shape = dict(zip(self.levels, shapes, strict=True))

    @property
    def size_divisibility(self) -> int:
        """The coarse stride, so that the finer map is exactly twice the coarse one."""
        return max(spec.stride for spec in self._output_shape.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._output_shape)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H / s, W / s)} to {level: (N, C', H / s, W / s)}, finest first."""
        fine, coarse = (features[name] for name in self.in_features)
        branch = self.branch(coarse)
        joined = torch.cat((double(self.join(branch)), fine), dim=1)
        return dict(zip(self.levels, (self.output_fine(joined), self.output_coarse(branch)), strict=True))

    def darknet_order(self) -> list[list[DarknetConv]]:
        """The convolutions as a Darknet file lists them: one list for each level, coarsest first."""
        return [[self.branch, self.output_coarse], [self.join, self.output_fine]]


def level_names(inputs: Sequence[ShapeSpec]) -> list[str]:
    """`p3` for stride 8, `p4` for 16, ..."""
    return [f"p{int(math.log2(spec.stride))}" for spec in inputs]


def double(x: Tensor) -> Tensor:
    """Each cell becomes 2x2 cells: (N, C, H, W) to (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
