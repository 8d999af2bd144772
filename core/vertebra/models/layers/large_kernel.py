"""A kernel as large as the map, in two thin pieces.

Source: Peng et al., "Large Kernel Matters: Global Convolutional Network", arXiv:1703.02719, section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.models.convolution import msra_fill

__all__ = ["LargeSeparableKernel"]


class LargeSeparableKernel(nn.Module):
    """A k x 1 convolution followed by a 1 x k one, plus a 1 x k followed by a k x 1: k x k cells are seen.

    Linear, as in the paper: neither a norm nor an activation. Costs 2k (C_in + C_out) C_out weights, not
    k^2 C_in C_out.

    Args:
        kernel_size: k, odd, in cells.
        bias: of each of the four convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 7, bias: bool = True) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"LargeSeparableKernel: kernel_size is {kernel_size}; it must be odd")
        tall, wide = (kernel_size, 1), (1, kernel_size)
        self.tall_wide = _two(in_channels, out_channels, tall, wide, bias)
        self.wide_tall = _two(in_channels, out_channels, wide, tall, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        return self.tall_wide(x) + self.wide_tall(x)


def _two(
    in_channels: int, out_channels: int, first: tuple[int, int], second: tuple[int, int], bias: bool
) -> nn.Sequential:
    convs = [
        nn.Conv2d(in_channels, out_channels, first, padding=(first[0] // 2, first[1] // 2), bias=bias),
        nn.Conv2d(out_channels, out_channels, second, padding=(second[0] // 2, second[1] // 2), bias=bias),
    ]
    for conv in convs:
        msra_fill(conv)
    return nn.Sequential(*convs)
