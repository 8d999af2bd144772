"""Blocks of the cross-stage-partial networks: a convolution with norm and activation, C3, C2f, SPPF.

Sources: Wang et al., "CSPNet", arXiv:1911.11929 (cross-stage-partial blocks); He et al., "Spatial Pyramid Pooling",
arXiv:1406.4729, in YOLOv5's form of three poolings in a row; the layout of YOLOv5's releases 6 and 7 as published.
Letters: N images, C channels, H x W cells.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import fold_into

__all__ = ["C3", "SPPF", "Activation", "Bottleneck", "C2f", "ConvAct", "round_channels"]

Activation = Literal["silu", "relu", "leaky_relu", "none"]

_EPS, _MOMENTUM = 1e-3, 0.03  # of the batch norms, as published with YOLOv5


class ConvAct(nn.Module):
    """Convolution, batch norm, activation: children `conv` and `norm`.

    Args:
        padding: None keeps the size at stride 1 (kernel_size // 2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=_EPS, momentum=_MOMENTUM)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        x = self.norm(self.conv(x))
        if self.activation == "none":
            return x
        in_place = not (torch.is_grad_enabled() and x.requires_grad)
        if self.activation == "silu":
            return F.silu(x, inplace=in_place)
        return F.relu(x, inplace=in_place) if self.activation == "relu" else F.leaky_relu(x, 0.1, inplace=in_place)

    def fold_norm(self) -> None:
        """For inference: the norm becomes part of the convolution (`fuse_conv_bn` calls this)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            fold_into(self.conv, self.norm)
            self.norm = nn.Identity()


class Bottleneck(nn.Module):
    """Two convolutions, and the input added where the channels allow it.

    Args:
        kernels: of the two convolutions.
        expansion: channels between them as a share of `out_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shortcut: bool = True,
        kernels: tuple[int, int] = (1, 3),
        expansion: float = 1.0,
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvAct(in_channels, hidden, kernels[0])
        self.conv2 = ConvAct(hidden, out_channels, kernels[1])
        self.add = shortcut and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage-partial block of three convolutions: one half goes through bottlenecks, the other past them."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvAct(in_channels, hidden)
        self.conv2 = ConvAct(in_channels, hidden)
        self.conv3 = ConvAct(2 * hidden, out_channels)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(torch.cat((self.blocks(self.conv1(x)), self.conv2(x)), dim=1))


class C2f(nn.Module):
    """Cross-stage-partial block of two convolutions that keeps what every bottleneck gives.

    Args:
        make_block: one bottleneck from its number of channels; None: two 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        shortcut: bool = False,
        make_block: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.hidden = hidden
        self.conv1 = ConvAct(in_channels, 2 * hidden)
        self.conv2 = ConvAct((2 + num_blocks) * hidden, out_channels)
        make_block = make_block or (lambda channels: Bottleneck(channels, channels, shortcut, (3, 3)))
        self.blocks = nn.ModuleList(make_block(hidden) for _ in range(num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.conv1(x).split(self.hidden, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.conv2(torch.cat(parts, dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three 5x5 poolings in a row see as far as one each of 5, 9 and 13."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = ConvAct(in_channels, hidden)
        self.conv2 = ConvAct(4 * hidden, out_channels)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.conv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], self.kernel_size, stride=1, padding=self.kernel_size // 2))
        return self.conv2(torch.cat(parts, dim=1))


def round_channels(channels: float, multiple: int = 8) -> int:
    """The next multiple of 8 that is not less."""
    return -int(-channels // multiple) * multiple
