"""A convolution with a sum and a ReLU behind it; where a CPU predicts, all in one pass over the feature map.

oneDNN, which torch's own convolutions run in on the CPU, can add a tensor and clip at zero while it writes the output
(its "post-operations"). The values are those of the three calls, bit for bit; the map is written once, not three times.
torch has operators for it, which its compiler uses, but no public function; without them the three calls are made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["add_and_clip", "becomes_graph", "convolve"]

Pair = tuple[int, int]

_PLAIN = (Tensor, torch.nn.Parameter)  # other subclasses may have a convolution of their own
_OPERATOR = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_select_backend = getattr(torch._C, "_select_conv_backend", None)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    added: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """`F.conv2d`, plus `added`, through a ReLU where `relu` is set.

    Args:
        x: (N, C_in, H, W).
        weight: (C_out, C_in / groups, k, l).
        bias: (C_out,) or None.
        added: of the output's shape (N, C_out, H', W'); it is left as it is.
    """
    geometry = (stride, padding, dilation)
    if (relu or added is not None) and _fits_one_pass(x, weight, bias, geometry, groups, added):
        if added is None:
            return _OPERATOR(x, weight, bias, padding, stride, dilation, groups, "relu", [], "")
        clip = "relu" if relu else None
        return _OPERATOR(x, added, weight, bias, padding, stride, dilation, groups, "add", 1.0, clip, [], "")
    return add_and_clip(F.conv2d(x, weight, bias, *geometry, groups), added, relu)


def add_and_clip(x: Tensor, added: Tensor | None, relu: bool) -> Tensor:
    """x, which it may write to, plus `added`, through a ReLU where `relu` is set."""
    if added is not None:
        x = x.add_(added)
    return F.relu_(x) if relu else x


def becomes_graph() -> bool:
    """Whether what runs now is written down for inputs of any size: compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _fits_one_pass(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Pair, Pair, Pair], groups: int, added: Tensor | None
) -> bool:
    """Whether `F.conv2d` would run in oneDNN, on floats that no gradient and no graph is taken of."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or becomes_graph() or None in (_OPERATOR, _select_backend):
        return False
    tensors = [x, weight, *(tensor for tensor in (bias, added) if tensor is not None)]
    if any(type(tensor) not in _PLAIN or tensor.dtype != torch.float32 for tensor in tensors):
        return False
    if torch.is_autocast_enabled("cpu") or not (_is_dense(x) and (added is None or _is_dense(added))):
        return False
    chosen = _select_backend(x, weight, bias, *geometry, False, (0, 0), groups)
    return chosen == torch._C._ConvBackend.Mkldnn


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
