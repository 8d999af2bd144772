"""PANet in YOLO's form: features flow from coarse to fine, then back from fine to coarse, joined by concatenation.

Sources: Liu et al., "Path Aggregation Network", arXiv:1803.01534; C3 blocks and widths as published with YOLOv5.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Neck, ShapeSpec, finest_first
from vertebra_yolo.csp_blocks import C3, ConvAct

__all__ = ["PANet"]


class PANet(Neck):
    """Levels `p3`, `p4`, ... (named by stride), as many and as wide as the features that come in.

    Args:
        num_blocks: bottlenecks of each C3 block: 3 times the depth multiple in YOLOv5 (1 for n and s, 2 for m,
            3 for l, 4 for x).
        out_channels: of each level, finest first; None: those of the features that come in.
    """

    yolov5_names: ClassVar = ((r"neck\.(.+)", r"\1"),)  # see v5_import

    def __init__(
        self, input_shape: dict[str, ShapeSpec], num_blocks: int = 1, out_channels: list[int] | None = None
    ) -> None:
        super().__init__()
        self.features = finest_first("PANet", input_shape, argument="out_features", doubling=True)
        strides = [input_shape[name].stride for name in self.features]
        given = [input_shape[name].channels for name in self.features]
        widths = list(given) if out_channels is None else list(out_channels)
        if len(widths) != len(strides):
            raise ValueError(f"PANet: out_channels are {widths}, but there are {len(strides)} levels")
        self.reduce, self.top_down, self.down, self.bottom_up = (nn.ModuleList() for _ in range(4))
        for i in range(1, len(widths)):  # entry i - 1 joins level i with the finer level i - 1
            fine, coarse = widths[i - 1], widths[i]
            self.reduce.append(ConvAct(given[i] if i == len(widths) - 1 else coarse, fine))
            self.top_down.append(C3(fine + given[i - 1], fine, num_blocks, shortcut=False))
            self.down.append(ConvAct(fine, fine, 3, 2))
            self.bottom_up.append(C3(2 * fine, coarse, num_blocks, shortcut=False))
        self._shapes = {
            f"p{stride.bit_length() - 1}": ShapeSpec(channels=width, stride=stride)
            for stride, width in zip(strides, widths, strict=True)
        }

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride: each level must be exactly twice the next."""
        return max(shape.stride for shape in self._shapes.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {p3: ..., p4: ..., ...} of the same strides."""
        levels = [features[name] for name in self.features]
        x = levels[-1]
        reduced: list[Tensor] = []
        for i in reversed(range(len(self.reduce))):
            reduced.insert(0, self.reduce[i](x))
            up = F.interpolate(reduced[0], scale_factor=2.0, mode="nearest")
            x = self.top_down[i](torch.cat((up, levels[i]), dim=1))
        outputs = [x]
        for i, lateral in enumerate(reduced):
            x = self.bottom_up[i](torch.cat((self.down[i](x), lateral), dim=1))
            outputs.append(x)
        return dict(zip(self._shapes, outputs, strict=True))
