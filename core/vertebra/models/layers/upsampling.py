"""Upsampling: transposed convolutions that begin as bilinear interpolation, plain interpolation, and cropping.

Source of the bilinear start: Long et al., "Fully Convolutional Networks", arXiv:1411.4038, section 3.3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BilinearConvTranspose2d", "Upsample", "bilinear_kernel", "crop", "crop_like", "resize"]


def bilinear_kernel(kernel_size: int) -> Tensor:
    """The (k, k) weights with which a transposed convolution of stride ceil(k / 2) interpolates bilinearly.

    A tent around the kernel's middle: k = 4 has the profile 1/4, 3/4, 3/4, 1/4; k = 3 has 1/2, 1, 1/2.
    """
    if kernel_size < 1:
        raise ValueError(f"bilinear_kernel: kernel_size is {kernel_size}; it must be at least 1")
    factor = (kernel_size + 1) // 2
    middle = (kernel_size - 1) / 2
    profile = 1 - (torch.arange(kernel_size, dtype=torch.float32) - middle).abs() / factor
    return profile[:, None] * profile[None, :]


class BilinearConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that starts as bilinear upsampling of each channel, and learns from there.

    Without padding the output, (size - 1) * factor + kernel_size, is wider than the reference it is laid over: cut it
    with `crop_like`. With the default padding it is exactly `factor` times the input.

    Args:
        channels: in and out; each output channel starts as the upsampled input channel of its number.
        factor: output cells per input cell, in both directions.
        kernel_size: None: the smallest bilinear one, 2 * factor - factor % 2.
        padding: cells cut off on every side; None: chosen such that the output is `factor` times the input.
        out_channels: another number of output channels starts with the first channels of the input only.
        bias: a bias for each output channel, 0 at first.
        groups: as in torch; `channels` gives every channel a kernel of its own.
        learned: False keeps the weights as they start (the paper's last layer).
    """

    def __init__(
        self,
        channels: int,
        factor: int,
        *,
        kernel_size: int | None = None,
        padding: int | None = None,
        out_channels: int | None = None,
        bias: bool = False,
        groups: int = 1,
        learned: bool = True,
    ) -> None:
        if factor < 1:
            raise ValueError(f"BilinearConvTranspose2d: factor is {factor}; it must be at least 1")
        size = 2 * factor - factor % 2 if kernel_size is None else kernel_size
        whole = size - factor  # cells that the output has beyond factor * input
        if padding is None:
            if whole < 0:
                raise ValueError(
                    f"BilinearConvTranspose2d: kernel_size {size} is smaller than the factor {factor}; "
                    "give it a padding, or a kernel at least as large"
                )
            padding, extra = (whole + 1) // 2, whole % 2
        else:
            extra = 0
        super().__init__(
            channels,
            channels if out_channels is None else out_channels,
            size,
            stride=factor,
            padding=padding,
            output_padding=extra,
            groups=groups,
            bias=bias,
        )
        self.weight.requires_grad_(learned)

    def reset_parameters(self) -> None:
        """Bilinear weights on the diagonal, 0 elsewhere."""
        per_group = self.weight.shape[1]  # the weight is (C_in, C_out / groups, k, k)
        width = self.in_channels // self.groups
        rows = [row for row in range(self.in_channels) if row % width < per_group]
        with torch.no_grad():
            self.weight.zero_()
            self.weight[rows, [row % width for row in rows]] = bilinear_kernel(self.kernel_size[0]).to(self.weight)
            if self.bias is not None:
                self.bias.zero_()


class Upsample(nn.Module):
    """Interpolation by a factor, or to the size of another map.

    Args:
        factor: output cells per input cell, in both directions.
        mode: "nearest", or "bilinear" with cells as areas (`align_corners=False`).
    """

    def __init__(self, factor: int = 2, mode: Literal["nearest", "bilinear"] = "bilinear") -> None:
        super().__init__()
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"Upsample: mode is {mode!r}; it must be 'nearest' or 'bilinear'")
        if factor < 1:
            raise ValueError(f"Upsample: factor is {factor}; it must be at least 1")
        self.factor = factor
        self.mode = mode

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, H, W) to (N, C, factor * H, factor * W), or to `size` (height, width) where it is given."""
        if size is None:
            size = (x.shape[-2] * self.factor, x.shape[-1] * self.factor)
        return resize(x, size, self.mode)


def resize(x: Tensor, size: tuple[int, int], mode: Literal["nearest", "bilinear"] = "bilinear") -> Tensor:
    """(N, C, H, W) to (N, C, *size); the same tensor where it has that size already."""
    exporting = torch.compiler.is_compiling()  # sizes may be symbols there, which must not be compared
    if not exporting and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode=mode, align_corners=False if mode == "bilinear" else None)


def crop_like(x: Tensor, reference: Tensor, offset: int | tuple[int, int] | None = None) -> Tensor:
    """The part of `x` (N, C, H, W) that has the height and width of `reference`.

    Args:
        offset: (rows, columns) of `x` above and left of the part, or one number for both; None: the middle part, the
            odd row or column going to the end.
    Raises:
        ValueError: `x` is smaller than the reference, or the part would reach beyond it.
    """
    height, width = reference.shape[-2:]
    spare = (x.shape[-2] - height, x.shape[-1] - width)
    if offset is None:
        top, left = spare[0] // 2, spare[1] // 2
    else:
        top, left = offset if isinstance(offset, tuple) else (offset, offset)
    if not all(isinstance(number, int) for number in (*spare, top, left)):  # symbols must not be compared
        return crop(x, (height, width), (top, left))
    if min(spare) < 0 or min(top, left) < 0 or top > spare[0] or left > spare[1]:
        raise ValueError(
            f"crop_like: cannot cut {height} x {width} at offset ({top}, {left}) out of {x.shape[-2]} x {x.shape[-1]}"
        )
    return crop(x, (height, width), (top, left))


def crop(x: Tensor, size: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> Tensor:
    """`size` (height, width) cells of `x` (N, C, H, W) from `offset` (row, column) on; whatever of them there is.

    In a graph of any size all of them must be there: it picks rows and columns by number, because a slice asks at once
    whether it fits, which sizes that are symbols cannot answer.
    """
    (height, width), (top, left) = size, offset
    if all(isinstance(number, int) for number in (height, width, top, left)):
        return x[..., top : top + height, left : left + width]
    rows = torch.arange(height, device=x.device) + top
    return x.index_select(-2, rows).index_select(-1, torch.arange(width, device=x.device) + left)
