"""A convolution with its normalization and activation, and the ways to fill one at the start."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vertebra.models.norms import FrozenBatchNorm2d, NormName, get_norm, scale_and_shift

__all__ = ["ConvNorm", "becomes_graph", "fill_bias", "msra_fill", "normal_fill", "visible_taps", "xavier_fill"]


class ConvNorm(nn.Conv2d):
    """Convolution, normalization, perhaps ReLU. The norm is the child `norm`, as in Detectron2's weights.

    Batch normalization with fixed statistics (frozen, or in eval mode) is folded into the kernel wherever the kernel
    is smaller than its output: one pass over the feature map less, and nothing of it kept for the backward pass.

    Args:
        norm: see `get_norm`; with a norm the convolution has no bias.
        relu: whether a ReLU follows.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: NormName = "",
        relu: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=norm in ("", "none"),
        )
        self.norm = get_norm(norm, out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)) for odd kernels."""
        norm = self._norm_to_fold(x)
        if norm is not None:
            x = self._conv_forward(x, *self._folded(norm, x.dtype))
        else:
            x = self._normalize(self._conv_forward(x, self.weight, self.bias))
        return F.relu_(x) if self.relu else x

    def forward_parts(self, x: Tensor, everywhere: Tensor) -> Tensor:
        """What a 1x1 convolution makes of a map whose last channels have one value for the whole image.

        Equal to `forward` on the two side by side, without spreading the second over the map.

        Args:
            x: (N, C_in - C, H, W).
            everywhere: (N, C, 1, 1), the value of the last C channels in every cell.
        """
        norm, split = self._norm_to_fold(x), x.shape[1]
        weight, bias = (self.weight, self.bias) if norm is None else self._folded(norm, x.dtype)
        x = F.conv2d(x, weight[:, :split]).add_(F.conv2d(everywhere, weight[:, split:], bias))
        if norm is None:
            x = self._normalize(x)
        return F.relu_(x) if self.relu else x

    def freeze(self) -> None:
        """Takes the layer out of training: no gradients, batch statistics fixed."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        if isinstance(self.norm, _BatchNorm):
            self.norm = FrozenBatchNorm2d.from_batch_norm(self.norm)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if becomes_graph():
            return super()._conv_forward(x, weight, bias)
        padding, dilation = self.padding, self.dilation
        if dilation != (1, 1) and self._keeps_size():
            weight, padding, dilation = visible_taps(weight, dilation, (x.shape[-2], x.shape[-1]))
        convolve = partial(
            F.conv2d, bias=bias, stride=self.stride, padding=padding, dilation=dilation, groups=self.groups
        )
        depthwise = 1 < self.groups == self.in_channels and dilation != (1, 1)
        if not depthwise or x.device.type != "cpu":
            return convolve(x, weight)
        # oneDNN's dilated depthwise kernels are two to four times as slow over NHWC as over NCHW. A kernel (C, 1, k, k)
        # lies both ways at once; strides made anew say NCHW.
        out = convolve(x.contiguous(), weight.flatten(1).view_as(weight))
        return out if x.is_contiguous() else out.contiguous(memory_format=torch.channels_last)

    def _keeps_size(self) -> bool:
        return self.padding == tuple(d * (k - 1) / 2 for d, k in zip(self.dilation, self.kernel_size, strict=True))

    def _normalize(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return x
        if self.norm.training and isinstance(self.norm, _BatchNorm) and x.shape[0] * x.shape[2:].numel() == 1:
            raise ValueError(
                f"batch normalization in training needs more than one value per channel, but this feature map is "
                f"{tuple(x.shape)}: one image of one cell. Train on larger images or crops, on two images or more a "
                "batch, or with another norm ('gn', 'frozen_bn')"
            )
        return self.norm(x)

    def _folded(self, norm: FrozenBatchNorm2d | _BatchNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Kernel and bias with the norm's fixed statistics in them."""
        scale, shift = scale_and_shift(norm)
        return self.weight * scale.to(self.weight.dtype).view(-1, 1, 1, 1), shift.to(dtype)

    def _norm_to_fold(self, x: Tensor) -> FrozenBatchNorm2d | _BatchNorm | None:
        """The norm, where its statistics are fixed and folding it into the kernel pays."""
        norm = self.norm
        if not isinstance(norm, (FrozenBatchNorm2d, _BatchNorm)) or becomes_graph():
            return None  # a compiler fuses the norm by itself, at any input size
        fixed = isinstance(norm, FrozenBatchNorm2d) or not norm.training
        cells = x.shape[0] * x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        return norm if fixed and cells * self.out_channels > self.weight.numel() else None


def becomes_graph() -> bool:
    """Whether what runs now is written down for inputs of any size: compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def visible_taps(
    weight: Tensor, dilation: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """The part (C_out, C_in, k', k'') of an odd kernel that some cell of a map of `size` can see; padding, dilation.

    For convolutions whose output is as large as their input. A dilation that is no smaller than the map takes all but
    the middle taps into the padding, where they add nothing (Chen et al., arXiv:1706.05587, section 3.3); so do the
    outer taps of a kernel that is much larger than the map.

    Args:
        weight: (C_out, C_in, k, l), k and l odd.
        dilation: in cells, down and across.
        size: height and width of the input, in cells.
    """
    taps, padding, steps = [slice(None), slice(None)], [], []
    for length, step, cells in zip(weight.shape[-2:], dilation, size, strict=True):
        half = length // 2
        reach = min(half, (cells - 1) // step)
        taps.append(slice(half - reach, half + reach + 1))
        padding.append(reach * step)
        steps.append(step if reach else 1)
    return weight[tuple(taps)], (padding[0], padding[1]), (steps[0], steps[1])


def msra_fill(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal weights of variance 2 / fan-out, zero bias. He et al., arXiv:1502.01852; Detectron2's c2_msra_fill."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def xavier_fill(conv: nn.Conv2d | nn.Linear) -> None:
    """Uniform weights in +-sqrt(3 / fan-in), zero bias: Caffe2's XavierFill; Detectron2's c2_xavier_fill."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def normal_fill(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, std: float) -> None:
    """Normal weights of standard deviation `std`, zero bias."""
    nn.init.normal_(layer.weight, std=std)
    fill_bias(layer, 0.0)


def fill_bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, value: float | Tensor) -> None:
    """Sets the bias, where the layer has one, to a number or to one number per output channel."""
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias.copy_(torch.as_tensor(value))
