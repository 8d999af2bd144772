"""DeepLabV3+ head: ASPP on the last feature, then a small decoder that brings back the edges from a finer one.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
arXiv:1802.02611, sections 3.1 and 4.1. Several finer features may be named; they are merged from coarse to fine.
Letters: N images, K classes, h x w cells of the finest feature used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vertebra.models import Loss, SemanticHead, ShapeSpec, finest_first
from vertebra.models.layers import ASPP, ConvNorm, NormName, SeparableConvNorm, resize, xavier_fill
from vertebra_deeplab.levels import choose_level, rates_at
from vertebra_deeplab.v3_head import make_predictor

__all__ = ["DeepLabV3PlusHead"]


class DeepLabV3PlusHead(SemanticHead):
    """DeepLabV3+: one level with context, and finer ones for the edges.

    Args:
        in_feature: of the backbone, for the ASPP; None: the last.
        low_level_features: finer ones for the decoder, in any order; None: the first of the backbone (stride 4).
        low_level_channels: to which a 1x1 convolution narrows each of them, so that they do not outweigh the context.
        rates, norm, pool_norm, dropout, pool_size: see `DeepLabV3Head`.
        channels: of the ASPP.
        num_convs: 3x3 convolutions between ASPP and decoder: 0 in the paper, 1 in segmentation_models_pytorch.
        decoder_channels: of the decoder's convolutions; None: as `channels`.
        decoder_convs: convolutions behind each merge.
        decoder_kernel_size: of these; Detectron2's separable decoder has one of 5 in place of two of 3.
        separable: each convolution wider than 1x1 depthwise and then 1x1 (section 3.1).
        inner_norm: of separable ones, behind the depthwise convolution; None: as `norm`; "none": neither norm nor ReLU.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    detectron2_names: ClassVar = (
        (r"sem_seg_head\.decoder\.\w+\.project_conv\.convs\.\d+\.1\.(weight|bias)", r"aspp.pool.\1"),
        (r"sem_seg_head\.decoder\.\w+\.project_conv\.((?:convs|project)\..+)", r"aspp.\1"),
        (r"sem_seg_head\.decoder\.(\w+)\.project_conv\.(.+)", r"narrow.\1.\2"),
        (r"sem_seg_head\.decoder\.(\w+)\.fuse_conv\.((?:depth|point)wise\..+)", r"merge.\1.0.\2"),
        (r"sem_seg_head\.decoder\.(\w+)\.fuse_conv\.(\d.+)", r"merge.\1.\2"),
        (r"sem_seg_head\.(predictor\..+)", r"\1"),
    )

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_feature: str | None = None,
        low_level_features: Sequence[str] | None = None,
        low_level_channels: int = 48,
        rates: Sequence[int] | None = None,
        channels: int = 256,
        num_convs: int = 0,
        decoder_channels: int | None = None,
        decoder_convs: int = 2,
        decoder_kernel_size: int = 3,
        norm: NormName = "bn",
        pool_norm: NormName = "none",
        separable: bool = False,
        inner_norm: NormName | None = None,
        dropout: float = 0.1,
        pool_size: tuple[int, int] | None = None,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.in_feature = choose_level("DeepLabV3PlusHead", input_shape, in_feature)
        self.low_level_features = _low_levels(input_shape, self.in_feature, low_level_features)
        if decoder_convs < 1:
            raise ValueError(f"DeepLabV3PlusHead: decoder_convs is {decoder_convs}; it must be at least 1")
        spec = input_shape[self.in_feature]
        self.aspp = ASPP(
            spec.channels,
            channels,
            rates_at(spec.stride, rates),
            norm=norm,
            pool_norm=pool_norm,
            separable=separable,
            inner_norm=inner_norm,
            dropout=dropout,
            pool_size=pool_size,
        )
        wide = partial(SeparableConvNorm, inner_norm=inner_norm) if separable else ConvNorm
        self.convs = nn.Sequential(*(wide(channels, channels, 3, norm=norm, relu=True) for _ in range(num_convs)))
        self.narrow, self.merge = nn.ModuleDict(), nn.ModuleDict()
        width = channels
        decoder_channels = channels if decoder_channels is None else decoder_channels
        for name in self.low_level_features:
            self.narrow[name] = ConvNorm(input_shape[name].channels, low_level_channels, 1, norm=norm, relu=True)
            convs = []
            width += low_level_channels
            for _ in range(decoder_convs):
                convs.append(wide(width, decoder_channels, decoder_kernel_size, norm=norm, relu=True))
                width = decoder_channels
            self.merge[name] = nn.Sequential(*convs)
        for module in (*self.convs.modules(), *self.narrow.modules(), *self.merge.modules()):
            if isinstance(module, nn.Conv2d):
                xavier_fill(module)
        self.predictor = make_predictor(width, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{name: (N, C_l, H / s_l, W / s_l)} -> scores (N, K, h, w) at the finest feature."""
        x = self.convs(self.aspp(features[self.in_feature]))
        for name in self.low_level_features:
            fine = self.narrow[name](features[name])
            x = self.merge[name](torch.cat([fine, resize(x, tuple(fine.shape[-2:]))], dim=1))
        return self.predictor(x)


def _low_levels(input_shape: dict[str, ShapeSpec], deep: str, wanted: Sequence[str] | None) -> list[str]:
    """The finer features, coarsest first."""
    if wanted is not None and not wanted:
        raise ValueError("DeepLabV3PlusHead: low_level_features is empty; without a decoder it is DeepLabV3Head")
    wanted = list(input_shape)[:1] if wanted is None else wanted
    names = finest_first("DeepLabV3PlusHead", input_shape, wanted, argument="low_level_features")
    names.sort(key=lambda name: -input_shape[name].stride)  # of one stride in the order given
    for name in names:
        if input_shape[name].stride >= input_shape[deep].stride:
            raise ValueError(
                f"DeepLabV3PlusHead: {name} (stride {input_shape[name].stride}) is not finer than {deep} (stride "
                f"{input_shape[deep].stride}). Let the backbone return a finer one as well: out_features [res2, res5]"
            )
    return names
