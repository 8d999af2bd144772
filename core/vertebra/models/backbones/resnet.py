"""ResNet and ResNeXt in Detectron2's form: `stem`, then the stages `res2` to `res5` of strides 4 to 32.

Sources: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1;
Xie et al., "Aggregated Residual Transformations", arXiv:1611.05431 (groups). Stage names and widths as in Detectron2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.backbones.layouts import load_renamed, resnet_names
from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra.models.convolution import ConvNorm, msra_fill
from vertebra.models.norms import NormName

__all__ = ["ResNet"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = ("res2", "res3", "res4", "res5")


class ResNet(Backbone):
    """ResNet-18/34/50/101/152; with groups a ResNeXt (101 layers, 32 groups of width 8: X-101-32x8d).

    Args:
        norm: "frozen_bn" for fine-tuning at small batches, "bn" or "gn" for training from scratch; see `get_norm`.
        stride_in_1x1: a bottleneck's stride is in its first 1x1 convolution (the paper's, and MSRA weights') and not in
            the 3x3 one (torchvision's weights).
        out_features: which of stem, res2, ..., res5 to return; later stages than the last of these are not built.
        num_groups: of the 3x3 convolutions; depth 50 and more.
        width_per_group: channels of a group in res2, doubled at each stage.
        res5_dilation: 2 keeps res5 at stride 16 with dilated convolutions; depth 50 and more.
        freeze_at: 0 trains all, 1 fixes the stem, 2 also res2, and so on up to 5.
        stem_out_channels: channels of the first convolution.
        weights: a file, URL or `torchvision:ResNet50_Weights.IMAGENET1K_V1` to start from, in torchvision's, MSRA's or
            Detectron2's names. None: random ones (He et al., arXiv:1502.01852).
    """

    detectron2_names = ((r"^backbone\.(?:bottom_up\.)?((?:stem|res\d)\..*)$", r"\1"),)

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        norm: NormName = "frozen_bn",
        stride_in_1x1: bool = False,
        out_features: Sequence[str] = _STAGES,
        num_groups: int = 1,
        width_per_group: int = 64,
        res5_dilation: Literal[1, 2] = 1,
        freeze_at: int = 0,
        stem_out_channels: int = 64,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        basic = _check_arguments(depth, out_features, num_groups, width_per_group, res5_dilation, freeze_at)
        self.out_features = sorted(out_features, key=("stem", *_STAGES).index)
        self.stem = _Stem(stem_out_channels, norm)
        self._shapes = {"stem": ShapeSpec(channels=stem_out_channels, stride=4)}
        self.stage_names = _STAGES[: _STAGES.index(self.out_features[-1]) + 1 if self.out_features[-1] != "stem" else 0]

        in_channels, stride = stem_out_channels, 4
        for index, name in enumerate(self.stage_names):
            dilation = res5_dilation if name == "res5" else 1
            first_stride = 1 if name == "res2" or dilation == 2 else 2
            out_channels = (64 if basic else 256) * 2**index
            inner = num_groups * width_per_group * 2**index
            blocks = []
            for row in range(_BLOCKS[depth][index]):
                block_stride = first_stride if row == 0 else 1
                if basic:
                    block = _BasicBlock(in_channels, out_channels, stride=block_stride, norm=norm)
                else:
                    strides = (block_stride, 1) if stride_in_1x1 else (1, block_stride)
                    conv2 = {"groups": num_groups, "dilation": dilation}
                    block = _Bottleneck(in_channels, inner, out_channels, strides=strides, norm=norm, **conv2)
                blocks.append(block)
                in_channels = out_channels
            self.add_module(name, nn.Sequential(*blocks))
            stride *= first_stride
            self._shapes[name] = ShapeSpec(channels=out_channels, stride=stride)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                msra_fill(module)
        if weights is not None:
            load_renamed(self, weights, resnet_names)
        for part in (self.stem, *(getattr(self, name) for name in self.stage_names))[:freeze_at]:
            for conv in (module for module in part.modules() if isinstance(module, ConvNorm)):
                conv.freeze()

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: self._shapes[name] for name in self.out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, ceil(H / s), ceil(W / s))} for the `out_features`."""
        x = self.stem(images)
        features = {"stem": x}
        for name in self.stage_names:
            x = features[name] = getattr(self, name)(x)
        return {name: features[name] for name in self.out_features}


class _Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, each of stride 2."""

    def __init__(self, out_channels: int, norm: NormName) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, norm=norm, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 5, left)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: NormName) -> None:
        super().__init__()
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, norm=norm, relu=True)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        return F.relu_(out.add_(x if self.shortcut is None else self.shortcut(x)))


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut (figure 5, right); `strides` are those of the first two."""

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        strides: tuple[int, int],
        groups: int,
        dilation: int,
        norm: NormName,
    ) -> None:
        super().__init__()
        self.shortcut = _shortcut(in_channels, out_channels, max(strides), norm)
        self.conv1 = ConvNorm(in_channels, inner_channels, 1, stride=strides[0], norm=norm, relu=True)
        self.conv2 = ConvNorm(
            inner_channels, inner_channels, 3, stride=strides[1], groups=groups, dilation=dilation, norm=norm, relu=True
        )
        self.conv3 = ConvNorm(inner_channels, out_channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(self.conv2(self.conv1(x)))
        return F.relu_(out.add_(x if self.shortcut is None else self.shortcut(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: NormName) -> ConvNorm | None:
    """A 1x1 convolution where the channels change, otherwise nothing (option B of section 3.3)."""
    return None if in_channels == out_channels else ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm)


def _check_arguments(
    depth: int, out_features: Sequence[str], num_groups: int, width_per_group: int, res5_dilation: int, freeze_at: int
) -> bool:
    """Whether the blocks are basic ones (two 3x3 convolutions)."""
    if depth not in _BLOCKS:
        raise ValueError(f"ResNet: depth is {depth}; it must be one of {', '.join(map(str, _BLOCKS))}")
    unknown = [name for name in out_features if name not in ("stem", *_STAGES)]
    if unknown or not out_features:
        raise ValueError(f"ResNet: out_features {list(out_features)} must be some of stem, {', '.join(_STAGES)}")
    if not 0 <= freeze_at <= 5:
        raise ValueError(f"ResNet: freeze_at is {freeze_at}; it must be 0 (train all) to 5 (train nothing)")
    if res5_dilation not in (1, 2):
        raise ValueError(f"ResNet: res5_dilation is {res5_dilation}; it must be 1 or 2")
    basic = depth < 50
    if basic and (num_groups, width_per_group, res5_dilation) != (1, 64, 1):
        raise ValueError(f"ResNet: num_groups, width_per_group and res5_dilation need depth 50 or more, got {depth}")
    return basic
