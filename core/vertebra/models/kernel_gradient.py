"""convolve: a 2-D convolution whose kernel's gradient is made of matrix products where those are faster.

Without AVX-512, oneDNN's gradients of large 3x3 kernels run at half to two thirds of the speed of its other passes;
for a kernel of 512 x 2048 x 3 x 3 that is a tenth of FCN's whole training step. The gradient of one tap is a product
of two matrices, the output's gradient (C_out, cells) and the input as this tap sees it (cells, C_in), and the BLAS
below torch multiplies those at full speed. Cells that a tap would read from the padding are skipped.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["convolve", "products_are_faster"]

_CHANNELS, _CELLS = 256, 512  # smaller products do not fill the processor: oneDNN's kernels are as fast or faster
_MANY_CHANNELS = 512  # with fewer, what a tap sees has to stay in the caches for its copy to pay
_CELLS_IN_CACHE = 10_000


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """What `F.conv2d` gives with stride 1 and one group; its gradients equal to rounding.

    Args:
        x: (N, C_in, H, W) float.
        weight: (C_out, C_in, k, l).
        bias: (C_out,).
        padding: zeros around the map, in cells, down and across.
        dilation: between the taps, in cells, down and across.
    """
    return _Convolution.apply(x, weight, bias, padding, dilation)


def products_are_faster(x: Tensor, weight: Tensor, stride: tuple[int, int], groups: int) -> bool:
    """Whether `convolve` pays: a large kernel in training, on a CPU with AVX2 alone, in fp32 over NCHW."""
    return (
        x.device.type == "cpu"
        and weight.requires_grad
        and torch.is_grad_enabled()
        and weight.shape[2:].numel() > 1
        and _fills_the_processor(min(weight.shape[:2]), x.shape[0] * x.shape[2:].numel())
        and groups == 1
        and tuple(stride) == (1, 1)
        and x.dtype == weight.dtype == torch.float32
        and x.is_contiguous()
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and torch.backends.mkl.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _fills_the_processor(channels: int, cells: int) -> bool:
    return cells >= _CELLS and channels >= (_CHANNELS if cells <= _CELLS_IN_CACHE else _MANY_CHANNELS)


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: tuple[int, int]
    ) -> Tensor:
        return F.conv2d(x, weight, bias, 1, padding, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _, ctx.padding, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        by_products = to_weight and not torch.is_grad_enabled()  # what is differentiated again is oneDNN's
        layout = ([len(weight)], (1, 1), ctx.padding, ctx.dilation, False, (0, 0), 1)
        wanted = (to_x, to_weight and not by_products, to_bias)
        grads = list(torch.ops.aten.convolution_backward(grad, x, weight, *layout, wanted))
        if by_products:
            grads[1] = _kernel_gradient(grad, x, weight.shape[2:], ctx.padding, ctx.dilation)
        return (*(g if w else None for g, w in zip(grads, ctx.needs_input_grad[:3], strict=True)), None, None)


def _kernel_gradient(
    grad: Tensor, x: Tensor, taps: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """(C_out, C_in, k, l) of the gradient (N, C_out, H', W') and the input (N, C_in, H, W)."""
    grad, x = grad.transpose(0, 1), x.transpose(0, 1)
    products = x.new_empty(taps[0] * taps[1], len(grad), len(x))
    offsets = [[tap * d - p for tap in range(n)] for n, d, p in zip(taps, dilation, padding, strict=True)]
    for product, (down, across) in zip(products, itertools.product(*offsets), strict=True):
        rows, seen_rows = _seen(down, grad.shape[2], x.shape[2])
        columns, seen_columns = _seen(across, grad.shape[3], x.shape[3])
        of_tap, seen = grad[:, :, rows, columns], x[:, :, seen_rows, seen_columns]
        torch.mm(of_tap.reshape(len(grad), -1), seen.reshape(len(x), -1).t(), out=product)
    return products.permute(1, 2, 0).contiguous().view(len(grad), len(x), *taps)


def _seen(offset: int, length_out: int, length_in: int) -> tuple[slice, slice]:
    """The cells of the output that see a cell of the input at this offset and no padding; the cells they see."""
    start = max(0, -offset)
    stop = max(start, min(length_out, length_in - offset))
    return slice(start, stop), slice(start + offset, stop + offset)
