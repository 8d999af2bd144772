"""What a U-Net is made of on both sides: a few 3x3 convolutions at one resolution."""

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from vertebra.models.layers import ConvNorm, NormName

__all__ = ["ConvStage", "Padding"]

Padding = Literal["same", "valid"]

_GROUPS = 32  # of group normalization, as everywhere; fewer where the channels do not divide by it


class ConvStage(nn.Module):
    """Dropout, then `num_convs` times a 3x3 convolution, normalization and ReLU.

    Args:
        norm: see `get_norm`; without one the convolutions have a bias. "gn" takes as many groups up to 32 as divide
            the channels, so that narrow nets have it too.
        padding: "same" keeps height and width; "valid" takes 2 pixels off both for each convolution.
        dropout: probability with which each incoming value is set to 0 in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_convs: int = 2,
        norm: NormName = "bn",
        padding: Padding = "same",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_convs < 1:
            raise ValueError(f"num_convs is {num_convs}; a stage needs at least one convolution")
        if padding not in ("same", "valid"):
            raise ValueError(f"padding is {padding!r}; it must be 'same' or 'valid'")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
        self.dropout = nn.Dropout(dropout) if dropout else None
        channels = [in_channels] + [out_channels] * num_convs
        self.convs = nn.Sequential(*(_conv(before, after, norm, padding) for before, after in pairwise(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W), or without `2 * num_convs` rows and columns where padding is valid."""
        return self.convs(x if self.dropout is None else self.dropout(x))


def _conv(in_channels: int, out_channels: int, norm: NormName, padding: Padding) -> ConvNorm:
    """Section 3: weights of standard deviation sqrt(2 / N), N the number of incoming nodes of a neuron."""
    narrow = norm == "gn" and out_channels % _GROUPS != 0
    conv = ConvNorm(in_channels, out_channels, 3, norm="bn" if narrow else norm, relu=True)
    if narrow:
        conv.norm = nn.GroupNorm(math.gcd(_GROUPS, out_channels), out_channels)
    if padding == "valid":
        conv.padding = (0, 0)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
