"""Separable convolution: one kernel per channel, then a 1x1 convolution across channels.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611, section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.models.convolution import ConvNorm, xavier_fill
from vertebra.models.norms import NormName

__all__ = ["SeparableConvNorm"]


class SeparableConvNorm(nn.Module):
    """A depthwise convolution `depthwise`, perhaps dilated, and a 1x1 convolution `pointwise`.

    Costs k^2 C_in + C_in C_out weights, not k^2 C_in C_out.

    Args:
        norm: behind the pointwise convolution, and behind the depthwise one unless `inner_norm` says otherwise.
        inner_norm: behind the depthwise convolution; None: as `norm`. With "none" there is no ReLU there either, and
            no bias: the pair is one linear map.
        relu: whether a ReLU follows each norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: NormName = "bn",
        inner_norm: NormName | None = None,
        relu: bool = True,
    ) -> None:
        super().__init__()
        inner_norm = norm if inner_norm is None else inner_norm
        self.depthwise = ConvNorm(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=in_channels,
            norm=inner_norm,
            relu=relu and inner_norm not in ("", "none"),
        )
        self.pointwise = ConvNorm(in_channels, out_channels, 1, norm=norm, relu=relu)
        if self.depthwise.norm is None:
            self.depthwise.bias = None  # the next convolution's covers it
        for conv in (self.depthwise, self.pointwise):
            xavier_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)) for odd kernels."""
        return self.pointwise(self.depthwise(x))
