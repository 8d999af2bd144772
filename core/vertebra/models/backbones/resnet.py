"""ResNet and ResNeXt in Detectron2's form: `stem`, then the stages `res2` to `res5` of strides 4 to 32.

Sources: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1;
Xie et al., "Aggregated Residual Transformations", arXiv:1611.05431 (groups). Stage names and widths as in Detectron2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.backbones.layouts import TORCHVISION_RESNET, load_renamed, resnet_names
from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra.models.convolution import ConvNorm, msra_fill
from vertebra.models.norms import NormName

__all__ = ["ResNet"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STEMS = ("conv1", "stem")
_STAGES = ("res2", "res3", "res4", "res5")


class ResNet(Backbone):
    """ResNet-18/34/50/101/152; with groups a ResNeXt (101 layers, 32 groups of width 8: X-101-32x8d).

    Args:
        norm: "frozen_bn" for fine-tuning at small batches, "bn" or "gn" for training from scratch; see `get_norm`.
        stride_in_1x1: a bottleneck's stride is in its first 1x1 convolution (the paper's, and MSRA weights') and not in
            the 3x3 one (torchvision's weights).
        out_features: which of conv1, stem, res2, ..., res5 to return; later stages than the last are not built. conv1
            is what goes into the first pooling, at stride 2; stem what comes out of it.
        num_groups: of the 3x3 convolutions; depth 50 and more.
        width_per_group: channels of a group in res2, doubled at each stage.
        res4_dilation: 2 keeps res4 at stride 8 with dilated convolutions; res5_dilation is then 4.
        res5_dilation: 2 keeps res5 at stride 16 with dilated convolutions; 4, with res4_dilation 2, at stride 8.
        res5_multi_grid: multiplies the dilation of each block of res5 (arXiv:1706.05587, section 3.2.1): 1, 2, 4 there.
        dilate_first_block: False leaves the first block of a dilated stage the dilation of the stage before, as
            torchvision's dilated networks were trained.
        freeze_at: 0 trains all, 1 fixes the stem, 2 also res2, and so on up to 5.
        stem: "plain" is one 7x7 convolution, "deeplab" three of 3x3 (with 128 channels and depth 101: DeepLab's R-103).
        stem_out_channels: channels of the stem's last convolution.
        weights: a file, URL or `torchvision:ResNet50_Weights.IMAGENET1K_V1` to start from, in torchvision's, MSRA's or
            Detectron2's names. None: random ones (He et al., arXiv:1502.01852).
    """

    detectron2_names = ((r"^backbone\.(?:bottom_up\.)?((?:stem|res\d)\..*)$", r"\1"),)
    torchvision_names = TORCHVISION_RESNET

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        norm: NormName = "frozen_bn",
        stride_in_1x1: bool = False,
        out_features: Sequence[str] = _STAGES,
        num_groups: int = 1,
        width_per_group: int = 64,
        res4_dilation: Literal[1, 2] = 1,
        res5_dilation: Literal[1, 2, 4] = 1,
        res5_multi_grid: Sequence[int] | None = None,
        dilate_first_block: bool = True,
        freeze_at: int = 0,
        stem: Literal["plain", "deeplab"] = "plain",
        stem_out_channels: int = 64,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        basic = _check_arguments(depth, out_features, num_groups, width_per_group, freeze_at, stem)
        dilations = _dilations(depth, res4_dilation, res5_dilation, res5_multi_grid, dilate_first_block)
        self.out_features = sorted(out_features, key=(*_STEMS, *_STAGES).index)
        self.stem = _Stem(stem_out_channels, norm) if stem == "plain" else _DeepLabStem(stem_out_channels, norm)
        self._shapes = {
            name: ShapeSpec(channels=stem_out_channels, stride=s) for name, s in zip(_STEMS, (2, 4), strict=True)
        }
        last = self.out_features[-1]
        self.stage_names = () if last in _STEMS else _STAGES[: _STAGES.index(last) + 1]

        in_channels, stride = stem_out_channels, 4
        dilated = {"res4": res4_dilation > 1, "res5": res5_dilation > 1}
        for index, name in enumerate(self.stage_names):
            first_stride = 1 if name == "res2" or dilated.get(name) else 2
            out_channels = (64 if basic else 256) * 2**index
            inner = num_groups * width_per_group * 2**index
            blocks: list[nn.Module] = []
            for row, dilation in enumerate(dilations[name]):
                block_stride = first_stride if row == 0 else 1
                block: nn.Module
                if basic:
                    block = _BasicBlock(in_channels, out_channels, stride=block_stride, dilation=dilation, norm=norm)
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
        features = {}  # only what is requested, so that the rest is freed on the way
        if "conv1" in self.out_features:
            features["conv1"] = self.stem.convolve(images)
            x = _pool(features["conv1"])
        else:
            x = self.stem(images)
        for name in ("stem", *self.stage_names):
            x = x if name == "stem" else getattr(self, name)(x)
            if name in self.out_features:
                features[name] = x
        return features


def _pool(x: Tensor) -> Tensor:
    """Behind the stem: 3x3 max pooling of stride 2."""
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class _Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, each of stride 2."""

    def __init__(self, out_channels: int, norm: NormName) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, norm=norm, relu=True)

    def convolve(self, x: Tensor) -> Tensor:
        """What goes into the pooling."""
        return self.conv1(x)

    def forward(self, x: Tensor) -> Tensor:
        return _pool(self.convolve(x))


class _DeepLabStem(nn.Module):
    """Three 3x3 convolutions, the first of stride 2, and max pooling of stride 2: Detectron2's DeepLab project."""

    def __init__(self, out_channels: int, norm: NormName) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvNorm(3, half, 3, stride=2, norm=norm, relu=True)
        self.conv2 = ConvNorm(half, half, 3, norm=norm, relu=True)
        self.conv3 = ConvNorm(half, out_channels, 3, norm=norm, relu=True)

    def convolve(self, x: Tensor) -> Tensor:
        """What goes into the pooling."""
        return self.conv3(self.conv2(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return _pool(self.convolve(x))


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 5, left)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dilation: int, norm: NormName) -> None:
        super().__init__()
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, dilation=dilation, norm=norm, relu=True)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, dilation=dilation, norm=norm)

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


def _dilations(
    depth: int, res4: int, res5: int, multi_grid: Sequence[int] | None, dilate_first_block: bool
) -> dict[str, list[int]]:
    """The dilation of each block's 3x3 convolutions, by stage."""
    if (res4, res5) not in ((1, 1), (1, 2), (2, 4)):
        raise ValueError(
            f"ResNet: res4_dilation {res4} and res5_dilation {res5} do not go together; 1 and 1 give stride 32, "
            "1 and 2 stride 16, 2 and 4 stride 8"
        )
    found = {name: [1] * count for name, count in zip(_STAGES, _BLOCKS[depth], strict=True)}
    found["res4"] = [res4] * len(found["res4"])
    grid = list(multi_grid or [1] * len(found["res5"]))
    if len(grid) != len(found["res5"]) or min(grid) < 1:
        raise ValueError(
            f"ResNet: res5_multi_grid is {grid}; depth {depth} needs {len(found['res5'])} factors of at least 1"
        )
    found["res5"] = [res5 * factor for factor in grid]
    if not dilate_first_block:
        found["res4"][0], found["res5"][0] = 1, res4 * grid[0]
    return found


def _check_arguments(
    depth: int, out_features: Sequence[str], num_groups: int, width_per_group: int, freeze_at: int, stem: str
) -> bool:
    """Whether the blocks are basic ones (two 3x3 convolutions)."""
    if depth not in _BLOCKS:
        raise ValueError(f"ResNet: depth is {depth}; it must be one of {', '.join(map(str, _BLOCKS))}")
    unknown = [name for name in out_features if name not in (*_STEMS, *_STAGES)]
    if unknown or not out_features:
        raise ValueError(f"ResNet: out_features {list(out_features)} must be some of {', '.join((*_STEMS, *_STAGES))}")
    if not 0 <= freeze_at <= 5:
        raise ValueError(f"ResNet: freeze_at is {freeze_at}; it must be 0 (train all) to 5 (train nothing)")
    if stem not in ("plain", "deeplab"):
        raise ValueError(f"ResNet: stem is {stem!r}; it must be 'plain' or 'deeplab'")
    basic = depth < 50
    if basic and (num_groups, width_per_group) != (1, 64):
        raise ValueError(f"ResNet: num_groups and width_per_group need depth 50 or more, got {depth}")
    return basic
