"""A convolution with its normalisation and activation, and Detectron2's two ways to fill one at the start."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.norms import FrozenBatchNorm2d, NormName, get_norm, scale_and_shift

__all__ = ["ConvNorm", "msra_fill", "xavier_fill"]


class ConvNorm(nn.Conv2d):
    """Convolution, normalisation, perhaps ReLU. The norm is the child `norm`, as in Detectron2's weights.

    Batch normalisation with fixed statistics (frozen, or in eval mode) is folded into the kernel wherever the kernel
    is smaller than its output: one pass over the feature map less, and nothing of it kept for the backward pass.

    Args:
        norm: see `get_norm`; with a norm the convolution has no bias.
        relu: whether a ReLU follows.
    """

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
        if self._folds(x):
            scale, shift = scale_and_shift(self.norm)
            x = self._conv_forward(x, self.weight * scale.to(self.weight.dtype).view(-1, 1, 1, 1), shift.to(x.dtype))
        else:
            x = self._conv_forward(x, self.weight, self.bias)
            if self.norm is not None:
                x = self.norm(x)
        return F.relu_(x) if self.relu else x

    def freeze(self) -> None:
        """Takes the layer out of training: no gradients, batch statistics fixed."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm):
            self.norm = FrozenBatchNorm2d.from_batch_norm(self.norm)

    def _folds(self, x: Tensor) -> bool:
        fixed = isinstance(self.norm, FrozenBatchNorm2d) or (
            isinstance(self.norm, nn.modules.batchnorm._BatchNorm) and not self.norm.training
        )
        if not fixed or torch.compiler.is_compiling():  # a compiler fuses the norm by itself, at any input size
            return False
        cells = x.shape[0] * x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        return cells * self.out_channels > self.weight.numel()


def msra_fill(conv: nn.Conv2d) -> None:
    """Normal weights of variance 2 / fan-out, zero bias. He et al., arXiv:1502.01852; Detectron2's c2_msra_fill."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def xavier_fill(conv: nn.Conv2d) -> None:
    """Uniform weights in +-sqrt(3 / fan-in), zero bias: Caffe2's XavierFill; Detectron2's c2_xavier_fill."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
