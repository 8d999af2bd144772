"""How a decoder doubles the resolution: transposed convolution, or interpolation and a convolution."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.layers import bilinear_kernel, fill_bias

__all__ = ["Interpolation", "TransposedConvolution", "Upsampling"]


class Upsampling:
    """Describes one step of upsampling; the decoder, which knows the channels, makes the module.

    The module is called with a map (N, C, H, W) and the size (height, width) wanted: twice H and W, or one less where
    the finer map has an odd side.
    """

    component_kind: ClassVar[str] = "part"

    def out_channels(self, in_channels: int, width: int) -> int:
        """Channels of the result where the decoder asks for `width`."""
        return width

    def make(self, in_channels: int, width: int) -> nn.Module:
        raise NotImplementedError


@dataclass(frozen=True)
class TransposedConvolution(Upsampling):
    """A learned transposed convolution of stride 2.

    Args:
        kernel_size: 2 is the paper's "up-convolution", in which no two inputs share an output; 3 and 4 overlap.
        bilinear: start as bilinear interpolation (arXiv:1411.4038, section 3.3), groups of channels averaged down to
            the width wanted; needs kernel_size 4. Otherwise random.
    """

    kernel_size: Literal[2, 3, 4] = 2
    bilinear: bool = False

    def __post_init__(self) -> None:
        if self.kernel_size not in (2, 3, 4):
            raise ValueError(f"TransposedConvolution: kernel_size is {self.kernel_size}; it must be 2, 3 or 4")
        if self.bilinear and self.kernel_size != 4:
            raise ValueError(f"TransposedConvolution: bilinear needs kernel_size 4, got {self.kernel_size}")

    def make(self, in_channels: int, width: int) -> nn.Module:
        return _Transposed(in_channels, width, self.kernel_size, self.bilinear)


@dataclass(frozen=True)
class Interpolation(Upsampling):
    """Nearest or bilinear interpolation, then perhaps a convolution to the channels wanted.

    Args:
        kernel_size: of that convolution; None: there is none, and the map keeps its channels.
    """

    mode: Literal["nearest", "bilinear"] = "nearest"
    kernel_size: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("nearest", "bilinear"):
            raise ValueError(f"Interpolation: mode is {self.mode!r}; it must be 'nearest' or 'bilinear'")
        if self.kernel_size not in (None, 1, 3):
            raise ValueError(f"Interpolation: kernel_size is {self.kernel_size}; it must be 1, 3 or null")

    def out_channels(self, in_channels: int, width: int) -> int:
        return in_channels if self.kernel_size is None else width

    def make(self, in_channels: int, width: int) -> nn.Module:
        return _Interpolated(in_channels, width, self.mode, self.kernel_size)


class _Transposed(nn.ConvTranspose2d):
    """The result is cut at the end of a side where twice the input is one too many."""

    def __init__(self, in_channels: int, width: int, kernel_size: int, bilinear: bool) -> None:
        padding, extra = {2: (0, 0), 3: (1, 1), 4: (1, 0)}[kernel_size]
        super().__init__(in_channels, width, kernel_size, stride=2, padding=padding, output_padding=extra)
        fill_bias(self, 0.0)
        if bilinear:
            channel = torch.arange(in_channels)
            with torch.no_grad():
                self.weight.zero_()
                self.weight[channel, channel % width] = bilinear_kernel(kernel_size) * (width / in_channels)
        else:
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="linear")

    def forward(  # type: ignore[override]  # every upsampling step gets the size to fill, see Upsampling
        self, x: Tensor, size: tuple[int, int]
    ) -> Tensor:
        return super().forward(x)[..., : size[0], : size[1]]


class _Interpolated(nn.Module):
    def __init__(self, in_channels: int, width: int, mode: str, kernel_size: int | None) -> None:
        super().__init__()
        self.mode = mode
        self.conv = None if kernel_size is None else nn.Conv2d(in_channels, width, kernel_size, padding="same")

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.conv is not None and self.conv.kernel_size == (1, 1):  # commutes with interpolation: done on the small
            x = self.conv(x)
        x = F.interpolate(x, size=size, mode=self.mode, align_corners=None if self.mode == "nearest" else False)
        return x if self.conv is None or self.conv.kernel_size == (1, 1) else self.conv(x)
