"""The semantic branch of Panoptic FPN.

Source: Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv:1901.02446, section 3 and figure 3: each level goes
through 3x3 convolution, group norm, ReLU and bilinear doubling until it has the finest stride; their sum is scored.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from vertebra.models import Loss, SemanticHead, ShapeSpec, finest_first
from vertebra.models.layers import ConvNorm, NormName, Upsample, msra_fill

__all__ = ["SemSegFPNHead"]


class SemSegFPNHead(SemanticHead):
    """`sem_seg` scores (K, height, width) from the levels of a pyramid.

    Args:
        in_features: levels to use, in any order. None: all up to stride 32.
        conv_channels: of the convolutions.
        common_stride: of the sum, in input pixels.
        norm: behind each convolution.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    detectron2_names: ClassVar = ((r"sem_seg_head\.((?:p\d|res\d|predictor)\..+)", r"\1"),)

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_features: list[str] | None = None,
        conv_channels: int = 128,
        common_stride: int = 4,
        norm: NormName = "gn",
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.levels = _levels(input_shape, in_features, common_stride)
        for name in self.levels:
            doublings = round(math.log2(input_shape[name].stride / common_stride))
            layers: list[nn.Module] = []
            channels = input_shape[name].channels
            for number in range(max(1, doublings)):
                conv = ConvNorm(channels if number == 0 else conv_channels, conv_channels, 3, norm=norm, relu=True)
                msra_fill(conv)
                layers.append(conv)
                if number < doublings:
                    layers.append(Upsample(2, "bilinear"))
            self.add_module(name, nn.Sequential(*layers))
        self.predictor = nn.Conv2d(conv_channels, num_classes, kernel_size=1)
        msra_fill(self.predictor)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to scores (N, K, H/s, W/s) at the common stride s."""
        total = None
        for name in self.levels:
            x = getattr(self, name)(features[name])
            total = x if total is None else total + x
        return self.predictor(total)


def _levels(input_shape: dict[str, ShapeSpec], wanted: list[str] | None, common_stride: int) -> list[str]:
    """The levels finest first, each a power of two coarser than the common stride."""
    if wanted is None:
        wanted = [name for name, shape in input_shape.items() if common_stride <= shape.stride <= 32]
    names = finest_first("SemSegFPNHead", input_shape, wanted)
    for name in names:
        times = input_shape[name].stride / common_stride
        if times < 1 or not math.log2(times).is_integer():
            raise ValueError(
                f"SemSegFPNHead: level {name} has stride {input_shape[name].stride}, which is not common_stride "
                f"{common_stride} doubled any number of times"
            )
    return names
