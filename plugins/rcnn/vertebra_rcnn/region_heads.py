"""What a box branch does with each pooled region before it scores it: fully connected layers, or a ResNet's last stage.

Each is a description; the branch, which knows the channels, makes the module.
Sources: Girshick, "Fast R-CNN", arXiv:1504.08083; He et al., "Deep Residual Learning", arXiv:1512.03385, section 4.3
(res5 on regions, the C4 form).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from vertebra.models import ResNet
from vertebra.models.layers import ConvNorm, NormName, msra_fill, xavier_fill

__all__ = ["FastRCNNConvFCHead", "RegionHead", "RegionModule", "Res5"]


class RegionModule(Protocol):
    """An `nn.Module` from pooled regions (T, C, S, S) to what is scored: (T, C') or (T, C', S', S').

    One that keeps maps has `out_resolution`, S', as well.
    """

    out_channels: int
    """C'."""

    def __call__(self, regions: Tensor) -> Tensor: ...


class RegionHead:
    """Describes a module from pooled regions to what is scored, see `RegionModule`."""

    component_kind: ClassVar[str] = "part"

    def make(self, in_channels: int, resolution: int) -> RegionModule:
        """The module for regions (T, in_channels, resolution, resolution)."""
        raise NotImplementedError


@dataclass(frozen=True)
class FastRCNNConvFCHead(RegionHead):
    """3x3 convolutions, then fully connected layers, each with a ReLU.

    Args:
        num_conv, conv_dim, norm: number and channels of the convolutions, and what follows each, see `get_norm`.
        num_fc, fc_dim: number and width of the fully connected layers.
    """

    num_conv: int = 0
    conv_dim: int = 256
    num_fc: int = 2
    fc_dim: int = 1024
    norm: NormName = ""

    def __post_init__(self) -> None:
        if self.num_fc < 1 or min(self.num_conv, self.conv_dim - 1, self.fc_dim - 1) < 0:
            raise ValueError(f"FastRCNNConvFCHead needs at least one fully connected layer and widths above 0: {self}")

    def make(self, in_channels: int, resolution: int) -> RegionModule:
        return _ConvFC(self, in_channels, resolution)


@dataclass(frozen=True)
class Res5(RegionHead):
    """The last stage of a ResNet, as `vertebra.models.backbones.ResNet` builds it: halves the resolution.

    Args:
        weights: of the whole ResNet, from which the stage takes its own; None: random ones.
    """

    depth: Literal[18, 34, 50, 101, 152] = 50
    norm: NormName = "frozen_bn"
    stride_in_1x1: bool = False
    num_groups: int = 1
    width_per_group: int = 64
    weights: str | None = None

    def make(self, in_channels: int, resolution: int) -> RegionModule:
        stage = _Res5(self, resolution)
        if stage.in_channels != in_channels:
            raise ValueError(
                f"Res5 of a ResNet-{self.depth} takes {stage.in_channels} channels (a res4), the features have "
                f"{in_channels}; use the backbone's own depth and out_features: [res4], without a neck"
            )
        return stage


class _ConvFC(nn.Sequential):
    def __init__(self, layout: FastRCNNConvFCHead, in_channels: int, resolution: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, layout.num_conv + 1):
            conv = ConvNorm(in_channels, layout.conv_dim, 3, norm=layout.norm, relu=True)
            msra_fill(conv)
            layers[f"conv{number}"] = conv
            in_channels = layout.conv_dim
        layers["flatten"] = nn.Flatten()
        width = in_channels * resolution**2
        for number in range(1, layout.num_fc + 1):
            linear = nn.Linear(width, layout.fc_dim)
            xavier_fill(linear)
            layers[f"fc{number}"] = linear
            layers[f"fc{number}_relu"] = nn.ReLU(inplace=True)
            width = layout.fc_dim
        super().__init__(layers)
        self.out_channels = width


class _Res5(nn.Module):
    def __init__(self, layout: Res5, resolution: int) -> None:
        super().__init__()
        whole = ResNet(
            depth=layout.depth,
            norm=layout.norm,
            stride_in_1x1=layout.stride_in_1x1,
            out_features=["res4", "res5"],
            num_groups=layout.num_groups,
            width_per_group=layout.width_per_group,
            weights=layout.weights,
        )
        shapes = whole.output_shape()
        self.in_channels, self.out_channels = shapes["res4"].channels, shapes["res5"].channels
        self.out_resolution = (resolution + 1) // 2
        self.res5 = whole.get_submodule("res5")

    def forward(self, x: Tensor) -> Tensor:
        return self.res5(x)
