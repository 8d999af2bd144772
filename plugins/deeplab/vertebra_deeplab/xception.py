"""Xception-65 as DeepLabV3+ uses it: deeper, with strided separable convolutions in place of pooling.

Sources: Chen et al., arXiv:1802.02611, section 4.3 and figure 4; Chollet, "Xception", arXiv:1610.02357.
Letters: N images, H x W input pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Backbone, ShapeSpec, load_weights, read_weights
from vertebra.models.layers import ConvNorm, NormName, SeparableConvNorm, msra_fill

__all__ = ["Xception"]

_MIDDLE = {41: 8, 65: 16, 71: 16}  # blocks of the middle flow


class Xception(Backbone):
    """Features: `entry1` (stride 4, 128 channels), `low` (stride 4, 256: DeepLabV3+'s low-level feature), `entry2` (8),
    `middle` (16), `exit` (32).

    Args:
        depth: 65 is the paper's; 41 has half the middle flow, 71 more convolutions in the entry flow.
        output_stride: 16 or 8: what would have a larger stride keeps this one and is dilated instead.
        norm: behind every convolution, the depthwise ones too.
        out_features: which to return.
        weights: a file or URL in our own names to start from; None: random ones.
    """

    def __init__(
        self,
        depth: Literal[41, 65, 71] = 65,
        output_stride: Literal[8, 16, 32] = 16,
        norm: NormName = "bn",
        out_features: Sequence[str] = ("low", "exit"),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if depth not in _MIDDLE or output_stride not in (8, 16, 32):
            raise ValueError(
                f"Xception: depth {depth} must be one of {', '.join(map(str, _MIDDLE))}, output_stride {output_stride} "
                "8, 16 or 32"
            )
        self.stem = nn.Sequential(
            ConvNorm(3, 32, 3, stride=2, norm=norm, relu=True), ConvNorm(32, 64, 3, norm=norm, relu=True)
        )
        grow = _Growing(output_stride, norm)
        self.entry1 = grow.block(64, (128, 128, 128), stride=2)
        if depth == 71:
            self.entry2 = nn.Sequential(grow.block(128, (256,) * 3, stride=1), grow.block(256, (256,) * 3, stride=2))
            last = nn.Sequential(grow.block(256, (728,) * 3, stride=1), grow.block(728, (728,) * 3, stride=2))
        else:
            self.entry2 = nn.Sequential(grow.block(128, (256, 256, 256), stride=2))
            last = nn.Sequential(grow.block(256, (728, 728, 728), stride=2))
        shapes = {"entry1": (128, 4), "low": (256, 4), "entry2": (256, 8)}
        self.entry3 = last
        self.middle = nn.Sequential(*(grow.block(728, (728, 728, 728)) for _ in range(_MIDDLE[depth])))
        shapes["middle"] = (728, grow.stride)
        self.exit1 = grow.block(728, (728, 1024, 1024), stride=2)
        widths = (1024, 1536, 1536, 2048)
        self.exit2 = nn.Sequential(
            *(SeparableConvNorm(before, after, dilation=grow.dilation, norm=norm) for before, after in pairwise(widths))
        )
        shapes["exit"] = (2048, grow.stride)
        unknown = [name for name in out_features if name not in shapes]
        if unknown or not out_features:
            raise ValueError(f"Xception: out_features {list(out_features)} must be some of {', '.join(shapes)}")
        self._shapes = {name: ShapeSpec(*spec) for name, spec in shapes.items() if name in out_features}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                msra_fill(module)
        if weights is not None:
            load_weights(self, read_weights(weights), source=weights)

    @property
    def size_divisibility(self) -> int:
        return self._shapes[list(self._shapes)[-1]].stride

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, ceil(H / s), ceil(W / s))}."""
        features = {"entry1": self.entry1(self.stem(images))}
        x = features["entry1"]
        for block in cast("Iterable[_Block]", self.entry2):
            low, x = block.with_inner(x)
        features |= {"low": low, "entry2": x}
        features["middle"] = x = self.middle(self.entry3(x))
        features["exit"] = self.exit2(self.exit1(x))
        return {name: features[name] for name in self._shapes}


class _Block(nn.Module):
    """Three times ReLU and separable convolution, the last with the stride, beside a shortcut."""

    def __init__(
        self, in_channels: int, widths: tuple[int, int, int], stride: int, dilation: int, norm: NormName
    ) -> None:
        super().__init__()
        self.shortcut = None
        if stride > 1 or in_channels != widths[-1]:
            self.shortcut = ConvNorm(in_channels, widths[-1], 1, stride=stride, norm=norm)
        convs = []
        for before, after, step in zip((in_channels, *widths), widths, (1, 1, stride), strict=False):
            convs.append(SeparableConvNorm(before, after, stride=step, dilation=dilation, norm=norm, relu=False))
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_inner(x)[1]

    def with_inner(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the second convolution gives, still without the stride, and the block's output."""
        first, second, third = self.convs
        inner = second(F.relu(first(F.relu(x))))
        return inner, third(F.relu(inner)) + (x if self.shortcut is None else self.shortcut(x))


class _Growing:
    """Counts the stride while blocks are made; beyond `output_stride` it dilates the blocks behind instead."""

    def __init__(self, output_stride: int, norm: NormName) -> None:
        self.output_stride, self.norm = output_stride, norm
        self.stride, self.dilation = 2, 1

    def block(self, in_channels: int, widths: tuple[int, int, int], stride: int = 1) -> _Block:
        keep = self.stride * stride > self.output_stride
        block = _Block(in_channels, widths, 1 if keep else stride, self.dilation, self.norm)
        if keep:
            self.dilation *= stride
        else:
            self.stride *= stride
        return block
