"""Atrous spatial pyramid pooling: one map seen through several fields of view at once.

Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, section 3.3;
separable form: arXiv:1802.02611, section 3.1. The first form, a sum of branches (arXiv:1606.00915), is in the DeepLab
plugin.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.convolution import ConvNorm, xavier_fill
from vertebra.models.layers.separable import SeparableConvNorm
from vertebra.models.layers.upsampling import resize
from vertebra.models.norms import NormName

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """Branches side by side, then a 1x1 convolution: a 1x1 one, a dilated 3x3 one for each rate, and the image's mean.

    Args:
        in_channels: of the input.
        out_channels: of each branch and of the output.
        rates: dilations of the 3x3 convolutions, in cells.
        norm: behind each convolution except the pooled one.
        pool_norm: behind the convolution of the pooled branch. The mean of a whole map is one value per image and
            channel, so batch normalization there cannot train on one image; "none" (Detectron2's) has a bias instead.
        separable: each 3x3 convolution depthwise and then 1x1, each with norm and ReLU.
        inner_norm: of separable ones, behind the depthwise convolution, see `SeparableConvNorm`; None: as `norm`.
        dropout: share of the output's values set to 0 in training.
        pool_size: (height, width) in cells: the mean of such a window around each cell, for networks that were trained
            on crops of that size and see larger images (Detectron2's). A smaller map is pooled whole: a graph for any
            size cannot leave that open, so export one for a fixed size. None: always whole.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        *,
        norm: NormName = "bn",
        pool_norm: NormName = "none",
        separable: bool = False,
        inner_norm: NormName | None = None,
        dropout: float = 0.1,
        pool_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if any(rate < 1 for rate in rates):
            raise ValueError(f"ASPP: rates are {list(rates)}; each must be at least 1")
        if pool_size is not None and (len(pool_size) != 2 or min(pool_size) < 1):
            raise ValueError(
                f"ASPP: pool_size is {list(pool_size)}; it must be a height and a width of at least 1 cell"
            )
        wide = partial(SeparableConvNorm, inner_norm=inner_norm) if separable else ConvNorm
        branches: list[nn.Module] = [ConvNorm(in_channels, out_channels, 1, norm=norm, relu=True)]
        branches += [wide(in_channels, out_channels, 3, dilation=rate, norm=norm, relu=True) for rate in rates]
        self.convs = nn.ModuleList(branches)
        self.pool = ConvNorm(in_channels, out_channels, 1, norm=pool_norm, relu=True)
        self.project = ConvNorm((len(branches) + 1) * out_channels, out_channels, 1, norm=norm, relu=True)
        self.separable = separable
        self.dropout = dropout
        self.pool_size = None if pool_size is None else tuple(pool_size)
        self.out_channels = out_channels
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            xavier_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H, W)."""
        # On a CPU dilated depthwise kernels work on NCHW: turned round once for all of them.
        around = x.contiguous() if self.separable and x.device.type == "cpu" else x
        near = torch.cat([self.convs[0](x), *(conv(around) for conv in self.convs[1:])], dim=1)
        pooled = self.pool(self._pool(x))
        if self.pool_size is None:
            out = self.project.forward_parts(near, pooled)  # as if the mean stood in every cell of the map
        else:
            out = self.project(torch.cat([near, resize(pooled, (x.shape[-2], x.shape[-1]))], dim=1))
        return F.dropout(out, self.dropout, self.training)

    def _pool(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 1, 1), or the means of all windows of `pool_size` that lie inside the map."""
        if self.pool_size is None:
            return x.mean(dim=(2, 3), keepdim=True)
        window = tuple(map(min, self.pool_size, x.shape[-2:]))
        return F.avg_pool2d(x, window, stride=1)
