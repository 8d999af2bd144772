"""What the heads of this package share: scores of the image's size, wide convolutions, and layers that score."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import SemanticHead
from vertebra.models.layers import becomes_graph, crop, fill_bias, msra_fill, visible_taps

__all__ = ["FullSizeHead", "WideConv2d", "repeating_conv", "score_conv"]


class FullSizeHead(SemanticHead):
    """`forward` gives scores (N, K, H', W') that begin at the image's top left corner and cover it."""

    def class_scores(self, raw: Tensor, image_size: tuple[int, int]) -> Tensor:
        return crop(raw, image_size)

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        return {"sem_seg_scores": crop(raw, image_size)}  # of the input's size already: nothing to resize in the graph


class WideConv2d(nn.Conv2d):
    """A convolution padded to its input's size, which skips what of the kernel can only meet padding.

    On a map of h rows, offsets of h rows and more never meet the map. Without them the result is the same, and done
    sooner; and the CPU's bfloat16 gradient of a 7x7 kernel over one or two rows is right, which it is not with them
    (torch 2.14: parts of it are never written).

    Args:
        kernel_size: odd, in cells.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        msra_fill(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        if becomes_graph():
            return super().forward(x)
        kernel, padding, _ = visible_taps(self.weight, (1, 1), (x.shape[-2], x.shape[-1]))
        return F.conv2d(x, kernel, self.bias, padding=padding)


def score_conv(in_channels: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution that scores every class 0 at first."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size=1)
    nn.init.zeros_(conv.weight)  # section 4.3: random weights gained nothing in the scoring layer
    fill_bias(conv, 0.0)
    return conv


def repeating_conv(channels: int, factor: int, *, bias: bool = False) -> nn.ConvTranspose2d:
    """A transposed convolution whose windows do not overlap, and that repeats each value at first."""
    layer = nn.ConvTranspose2d(channels, channels, factor, stride=factor, bias=bias)
    fill_bias(layer, 0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None].expand_as(layer.weight))
    return layer
