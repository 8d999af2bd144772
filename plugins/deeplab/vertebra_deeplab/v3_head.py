"""DeepLabV3 head: atrous spatial pyramid pooling over the last feature map, then one score per class.

Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, section 3.3.
As in Detectron2, and unlike the paper, the pooled branch has a bias in place of batch normalization, so that one image
a batch can train; `pool_norm: bn` is the paper's.
Letters: N images, K classes, H x W padded input pixels, h x w cells of the last feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from vertebra.models import Loss, SemanticHead, ShapeSpec
from vertebra.models.layers import ASPP, ConvNorm, NormName, normal_fill, xavier_fill
from vertebra_deeplab.levels import choose_level, rates_at

__all__ = ["DeepLabV3Head", "make_predictor"]


class DeepLabV3Head(SemanticHead):
    """DeepLabV3 on one level.

    Args:
        in_feature: of the backbone; None: the last.
        rates: dilations of the ASPP's 3x3 convolutions, in cells. None: 6, 12, 18 at stride 16, 12, 24, 36 at stride 8.
        channels: of the ASPP and what follows.
        num_convs: 3x3 convolutions between ASPP and scores: 0 in the paper, 1 in torchvision.
        norm: of all convolutions but the pooled branch and the scores; see `get_norm`.
        pool_norm: of the pooled branch; batch normalization there needs two images a batch in training.
        separable: each 3x3 convolution depthwise and then 1x1.
        dropout: behind the ASPP.
        pool_size: (height, width) in cells that the pooled branch averages over; None: the whole map. See `ASPP`.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    detectron2_names: ClassVar = (
        (r"sem_seg_head\.aspp\.convs\.\d+\.1\.(weight|bias)", r"aspp.pool.\1"),
        (r"sem_seg_head\.((?:aspp|predictor)\..+)", r"\1"),
    )
    torchvision_names: Sequence[tuple[str, str]] = (
        (r"classifier\.0\.convs\.0\.0\.(\w+)", r"aspp.convs.0.\1"),
        (r"classifier\.0\.convs\.0\.1\.(\w+)", r"aspp.convs.0.norm.\1"),
        (r"classifier\.0\.convs\.4\.1\.(\w+)", r"aspp.pool.\1"),
        (r"classifier\.0\.convs\.4\.2\.(\w+)", r"aspp.pool.norm.\1"),
        (r"classifier\.0\.convs\.(\d)\.0\.(\w+)", r"aspp.convs.\1.\2"),
        (r"classifier\.0\.convs\.(\d)\.1\.(\w+)", r"aspp.convs.\1.norm.\2"),
        (r"classifier\.0\.project\.0\.(\w+)", r"aspp.project.\1"),
        (r"classifier\.0\.project\.1\.(\w+)", r"aspp.project.norm.\1"),
        (r"classifier\.1\.(\w+)", r"convs.0.\1"),
        (r"classifier\.2\.(\w+)", r"convs.0.norm.\1"),
        (r"classifier\.4\.(\w+)", r"predictor.\1"),
    )

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_feature: str | None = None,
        rates: Sequence[int] | None = None,
        channels: int = 256,
        num_convs: int = 0,
        norm: NormName = "bn",
        pool_norm: NormName = "none",
        separable: bool = False,
        dropout: float = 0.1,
        pool_size: tuple[int, int] | None = None,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.in_feature = choose_level("DeepLabV3Head", input_shape, in_feature)
        spec = input_shape[self.in_feature]
        self.aspp = ASPP(
            spec.channels,
            channels,
            rates_at(spec.stride, rates),
            norm=norm,
            pool_norm=pool_norm,
            separable=separable,
            dropout=dropout,
            pool_size=pool_size,
        )
        convs = [ConvNorm(channels, channels, 3, norm=norm, relu=True) for _ in range(num_convs)]
        for conv in convs:
            xavier_fill(conv)
        self.convs = nn.Sequential(*convs)
        self.predictor = make_predictor(channels, num_classes)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{name: (N, C, h, w)} -> scores (N, K, h, w)."""
        return self.predictor(self.convs(self.aspp(features[self.in_feature])))


def make_predictor(in_channels: int, num_classes: int) -> nn.Conv2d:
    """The 1x1 convolution that scores the classes; its weights are small: at first, all classes are about as likely."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size=1)
    normal_fill(conv, std=0.001)
    return conv
