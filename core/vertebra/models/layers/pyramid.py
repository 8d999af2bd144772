"""Context from several scales at once: pyramid pooling.

Source: Zhao et al., "Pyramid Scene Parsing Network", arXiv:1612.01105, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.convolution import ConvNorm, msra_fill
from vertebra.models.layers.upsampling import resize
from vertebra.models.norms import NormName

__all__ = ["PyramidPooling"]


class PyramidPooling(nn.Module):
    """The map itself beside averages over coarser and coarser grids, each made narrow by a 1x1 convolution.

    Batch normalization of the 1 x 1 grid sees one value per image and channel: train it with two images or more.

    Args:
        in_channels: of the input.
        bins: cells along a side of each grid.
        bin_channels: of each grid after its convolution; None: in_channels / number of bins.
        norm: behind each convolution.
    """

    def __init__(
        self,
        in_channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        bin_channels: int | None = None,
        norm: NormName = "bn",
    ) -> None:
        super().__init__()
        if not bins or min(bins) < 1:
            raise ValueError(f"PyramidPooling: bins {list(bins)} must be some numbers of at least 1")
        bin_channels = max(1, in_channels // len(bins)) if bin_channels is None else bin_channels
        self.bins = tuple(bins)
        convs = [ConvNorm(in_channels, bin_channels, 1, norm=norm, relu=True) for _ in bins]
        for conv in convs:
            msra_fill(conv)
        self.convs = nn.ModuleList(convs)
        self.out_channels = in_channels + len(self.bins) * bin_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H, W): the input first, then the grids in the order of `bins`."""
        size = (x.shape[-2], x.shape[-1])
        grids = [conv(F.adaptive_avg_pool2d(x, bins)) for bins, conv in zip(self.bins, self.convs, strict=True)]
        return torch.cat([x, *(resize(grid, size) for grid in grids)], dim=1)
