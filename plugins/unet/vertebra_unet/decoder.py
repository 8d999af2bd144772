"""The expansive path of U-Net as a neck: it doubles the resolution step by step and takes in the encoder's features.

Source: Ronneberger et al., arXiv:1505.04597, section 2 and figure 1.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vertebra.models import Neck, ShapeSpec, finest_first
from vertebra.models.layers import NormName, crop_like
from vertebra_unet.attention import AttentionGate
from vertebra_unet.stage import ConvStage, Padding
from vertebra_unet.upsampling import TransposedConvolution, Upsampling
from vertebra_unet.valid import valid_margin

__all__ = ["UNetDecoder", "levels_by_stride"]

_LEAST_WIDTH = 16  # of a stage without a skip connection, where no widths are given


class _Step(NamedTuple):
    """One doubling of the resolution: the stride it reaches, the feature that joins there, the channels wanted."""

    stride: int
    skip: str | None
    width: int


class UNetDecoder(Neck):
    """Maps `up<s>` for each stride s below the coarsest feature's, finest first; the finest is what a head scores.

    Takes the features of any backbone. Strides between those of the features, and those finer than the finest, are
    reached without a skip connection: behind a ResNet's `res2` to `res5` there are two more stages, to strides 2 and 1.

    Args:
        widths: channels of the stages, coarsest first. None: those of the feature that joins; half of those before,
            but at least 16, where none does.
        num_convs: 3x3 convolutions of a stage.
        norm: behind each convolution, see `get_norm`; none in the paper. "gn" takes up to 32 groups.
        upsampling: None: TransposedConvolution(kernel_size=2), the paper's.
        gate: weighs the features that join; None: they join as they are.
        dropout: of what goes into each stage's convolutions.
        padding: "valid" loses a border in every convolution, as the paper's; the features are cut to their middle.
        out_stride: where to end, in input pixels.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        widths: Sequence[int] | None = None,
        num_convs: int = 2,
        norm: NormName = "bn",
        upsampling: Upsampling | None = None,
        gate: AttentionGate | None = None,
        dropout: float = 0.0,
        padding: Padding = "same",
        out_stride: int = 1,
    ) -> None:
        super().__init__()
        upsampling = TransposedConvolution() if upsampling is None else upsampling
        levels = levels_by_stride("UNetDecoder", input_shape)
        self.coarsest = levels[max(levels)]
        self.steps = _plan(input_shape, levels, widths, out_stride)
        self.padding = padding
        self.margin = _margin(padding, levels, self.steps, num_convs)
        """Input pixels on every side that the finest map does not cover; 0 unless the padding is valid."""
        channels = input_shape[self.coarsest].channels
        self.ups, self.stages, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        for step in self.steps:
            self.ups.append(upsampling.make(channels, step.width))
            joined = upsampling.out_channels(channels, step.width)
            if step.skip is not None:
                skip_channels = input_shape[step.skip].channels
                joined += skip_channels
                if gate is not None:
                    self.gates[step.skip] = gate.make(skip_channels, channels)
            stage = ConvStage(joined, step.width, num_convs=num_convs, norm=norm, padding=padding, dropout=dropout)
            self.stages.append(stage)
            channels = step.width

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"up{step.stride}": ShapeSpec(channels=step.width, stride=step.stride) for step in reversed(self.steps)}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {"up<s>": (N, width, H/s, W/s)}."""
        x = features[self.coarsest]
        maps = {}
        for step, up, stage in zip(self.steps, self.ups, self.stages, strict=True):
            x = stage(self._joined(step.skip, up, x, features))
            maps[f"up{step.stride}"] = x
        return dict(reversed(maps.items()))

    def _joined(self, name: str | None, up: nn.Module, x: Tensor, features: dict[str, Tensor]) -> Tensor:
        """The coarser map enlarged, beside the feature `name` of that stride where there is one."""
        double = (2 * x.shape[-2], 2 * x.shape[-1])
        if name is None:
            return up(x, double)
        skip = features[name]
        if self.padding == "valid":
            larger = up(x, double)
            skip = crop_like(skip, larger)
        else:
            larger = up(x, tuple(skip.shape[-2:]))
        if name in self.gates:
            skip = self.gates[name](skip, x)
        return torch.cat((skip, larger), dim=1)


def levels_by_stride(who: str, input_shape: dict[str, ShapeSpec]) -> dict[int, str]:
    """{stride: name}, finest first; an error where they cannot be reached from each other by doubling."""
    levels: dict[int, str] = {}
    for name in finest_first(who, input_shape):
        spec = input_shape[name]
        if spec.stride in levels:
            raise ValueError(
                f"{who}: the features {levels[spec.stride]} and {name} both have stride {spec.stride}; name one of "
                "them in the backbone's out_features"
            )
        if math.log2(spec.stride) % 1:
            raise ValueError(f"{who}: feature {name} has stride {spec.stride}, which is not a power of 2")
        levels[spec.stride] = name
    return levels


def _plan(
    input_shape: dict[str, ShapeSpec], levels: dict[int, str], widths: Sequence[int] | None, out_stride: int
) -> list[_Step]:
    """The steps from the coarsest feature to `out_stride`, coarsest first."""
    coarsest = max(levels)
    if out_stride < 1 or math.log2(out_stride) % 1 or out_stride >= coarsest:
        raise ValueError(
            f"UNetDecoder: out_stride is {out_stride}; it must be a power of 2 below the coarsest feature's stride "
            f"{coarsest}"
        )
    strides = [2**power for power in reversed(range(int(math.log2(out_stride)), int(math.log2(coarsest))))]
    if widths is not None and (len(widths) != len(strides) or min(widths) < 1):
        raise ValueError(
            f"UNetDecoder: widths {list(widths)} must be {len(strides)} numbers of at least 1, for the strides "
            f"{', '.join(map(str, strides))}"
        )
    steps, width = [], input_shape[levels[coarsest]].channels
    for row, stride in enumerate(strides):
        skip = levels.get(stride)
        if widths is not None:
            width = widths[row]
        else:
            width = max(width // 2, _LEAST_WIDTH) if skip is None else input_shape[skip].channels
        steps.append(_Step(stride, skip, width))
    return steps


def _margin(padding: Padding, levels: dict[int, str], steps: list[_Step], num_convs: int) -> int:
    """What the finest map is missing on every side, in input pixels; an error where valid padding has no meaning."""
    if padding == "same":
        return 0
    if any(step.skip is None for step in steps) or steps[-1].stride != 1 or min(levels) != 1:
        raise ValueError(
            "UNetDecoder: padding 'valid' needs a feature at every stride from 1 on, as UNetEncoder with padding "
            f"'valid' gives them, and out_stride 1; the features have the strides {', '.join(map(str, levels))}"
        )
    return valid_margin(len(levels), num_convs)
