"""The decoder of Panoptic-DeepLab; its two branches have one each.

Source: Cheng et al., "Panoptic-DeepLab", arXiv:1911.10194, section 3.1: atrous pooling of the coarsest features, then
for each finer level: doubling, concatenation with that level's projection, one 5x5 depthwise separable convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vertebra.models import ShapeSpec, finest_first
from vertebra.models.layers import ASPP, ConvNorm, NormName, SeparableConvNorm, normal_fill, resize, xavier_fill

__all__ = ["PanopticDecoder", "prediction_branch"]


class PanopticDecoder(nn.Module):
    """Features of several strides to one map at the finest of them.

    Args:
        in_features: levels to use. None: the finest, the coarsest and the one whose stride is twice the finest.
        aspp_channels: of the pooled map. aspp_rates: its dilations.
        project_channels: of the finer levels' projections, finest first. decoder_channels: of each fused map and of
            the output.
        norm: of every convolution.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        in_features: list[str] | None,
        *,
        aspp_channels: int,
        aspp_rates: list[int],
        aspp_dropout: float,
        project_channels: list[int],
        decoder_channels: int,
        norm: NormName,
    ) -> None:
        super().__init__()
        self.levels = _levels(input_shape, in_features)
        *finer, coarsest = self.levels
        if len(project_channels) != len(finer):
            raise ValueError(
                f"project_channels has {len(project_channels)} numbers, but the levels {', '.join(self.levels)} need "
                f"{len(finer)}: one for each but the coarsest"
            )
        self.aspp = ASPP(input_shape[coarsest].channels, aspp_channels, aspp_rates, norm=norm, dropout=aspp_dropout)
        self.project, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        channels = aspp_channels
        for name, projected in reversed(list(zip(finer, project_channels, strict=True))):
            projection = ConvNorm(input_shape[name].channels, projected, 1, norm=norm, relu=True)
            xavier_fill(projection)
            self.project[name] = projection
            self.fuse[name] = SeparableConvNorm(channels + projected, decoder_channels, 5, norm=norm)
            channels = decoder_channels
        self.out_channels = channels
        self.stride = input_shape[self.levels[0]].stride

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to (N, C, H/s, W/s) at the finest stride s."""
        x = self.aspp(features[self.levels[-1]])
        for name in self.project:  # coarse to fine
            finer = self.project[name](features[name])
            x = self.fuse[name](torch.cat([resize(x, tuple(finer.shape[-2:])), finer], dim=1))
        return x


def prediction_branch(in_channels: int, channels: int, out_channels: int, norm: NormName) -> nn.Sequential:
    """A 5x5 depthwise separable convolution and the 1x1 one that predicts, its weights small."""
    last = nn.Conv2d(channels, out_channels, kernel_size=1)
    normal_fill(last, std=0.001)
    return nn.Sequential(SeparableConvNorm(in_channels, channels, 5, norm=norm), last)


def _levels(input_shape: dict[str, ShapeSpec], wanted: list[str] | None) -> list[str]:
    """Finest first."""
    order = finest_first("PanopticDecoder", input_shape)
    if wanted is not None:
        chosen = finest_first("PanopticDecoder", input_shape, wanted)
        return [name for name in order if name in chosen]
    finest = input_shape[order[0]].stride
    second = [name for name in order[1:-1] if input_shape[name].stride == 2 * finest][:1]
    return list(dict.fromkeys([order[0], *second, order[-1]]))
