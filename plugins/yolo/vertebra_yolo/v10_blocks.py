"""Blocks of YOLOv10: decoupled downsampling, the compact inverted block, partial self-attention.

Source: Wang et al., "YOLOv10: Real-Time End-to-End Object Detection", arXiv:2405.14458, section 3.2 and figure 3.
Letters: N images, C channels, H x W cells.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra_yolo.csp_blocks import C2f, ConvAct

__all__ = ["PSA", "C2fCIB", "CompactInvertedBlock", "LargeKernel", "SCDown"]


class SCDown(nn.Sequential):
    """Spatial-channel decoupled downsampling: a 1x1 convolution sets the channels, a depthwise 3x3 halves the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvAct(in_channels, out_channels),
            ConvAct(out_channels, out_channels, 3, 2, groups=out_channels, activation="none"),
        )


class LargeKernel(nn.Module):
    """Depthwise 7x7 convolution, in training with a parallel 3x3 one; `fold_norm` makes one kernel of both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = ConvAct(channels, channels, 7, groups=channels, activation="none")
        self.small: ConvAct | None = ConvAct(channels, channels, 3, groups=channels, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x)
        return F.silu(y if self.small is None else y + self.small(x))

    @torch.no_grad()
    def fold_norm(self) -> None:
        """After both norms are folded: adds the small kernel to the middle of the large one."""
        if self.small is None:
            return
        large, small = self.large.conv, self.small.conv
        if large.bias is None or small.bias is None:
            raise ValueError("LargeKernel.fold_norm: fold the norms of both convolutions first")
        large.weight += F.pad(small.weight, (2, 2, 2, 2))
        large.bias += small.bias
        self.small = None


class CompactInvertedBlock(nn.Module):
    """Depthwise convolutions mix places, 1x1 convolutions mix channels; the input is added.

    Args:
        large_kernel: the middle convolution is 7x7, see `LargeKernel`.
    """

    def __init__(self, channels: int, shortcut: bool = True, large_kernel: bool = False) -> None:
        super().__init__()
        wide = 2 * channels
        middle = LargeKernel(wide) if large_kernel else ConvAct(wide, wide, 3, groups=wide)
        self.layers = nn.Sequential(
            ConvAct(channels, channels, 3, groups=channels),
            ConvAct(channels, wide),
            middle,
            ConvAct(wide, channels),
            ConvAct(channels, channels, 3, groups=channels),
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.shortcut else y


class C2fCIB(C2f):
    """C2f whose blocks are compact inverted ones."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        shortcut: bool = True,
        large_kernel: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            num_blocks,
            make_block=lambda channels: CompactInvertedBlock(channels, shortcut, large_kernel),
        )


class PSA(nn.Module):
    """Partial self-attention: half of the channels go through attention and a feed-forward part, then join the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvAct(channels, 2 * half)
        self.attention = _Attention(half)
        self.feed_forward = nn.Sequential(ConvAct(half, 2 * half), ConvAct(2 * half, half, activation="none"))
        self.conv2 = ConvAct(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        rest, y = self.conv1(x).chunk(2, dim=1)
        y = y + self.attention(y)
        y = y + self.feed_forward(y)
        return self.conv2(torch.cat((rest, y), dim=1))


class _Attention(nn.Module):
    """Multi-head self-attention over the cells; keys and queries have half of the values' channels.

    A depthwise convolution of the values encodes their positions. Heads have 64 channels, as in the paper's models.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = max(channels // 64, 1)
        self.value_size = channels // self.num_heads
        self.key_size = self.value_size // 2
        self.qkv = ConvAct(channels, channels + 2 * self.key_size * self.num_heads, activation="none")
        self.place = ConvAct(channels, channels, 3, groups=channels, activation="none")
        self.project = ConvAct(channels, channels, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(x).reshape(n, self.num_heads, 2 * self.key_size + self.value_size, h * w)
        queries, keys, values = qkv.split([self.key_size, self.key_size, self.value_size], dim=2)
        parts = (part.transpose(2, 3) for part in (queries, keys, values))  # (N, heads, H * W, size)
        y = F.scaled_dot_product_attention(*parts).transpose(2, 3).reshape(n, c, h, w)
        return self.project(y + self.place(values.reshape(n, c, h, w)))
