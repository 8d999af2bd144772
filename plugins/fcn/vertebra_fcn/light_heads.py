"""Two small decoders over pool3, pool4 and pool5 of a VGG: summed step by step, and summed at once.

Variations of arXiv:1411.4038, section 4.2, that are widely taught: transposed convolutions begin at the features
themselves, and windows of the last one do not overlap. Scores are linear.
Letters: N images, K classes, H x W padded input pixels; levels of strides 8, 16 and 32.
"""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.models import Loss, ShapeSpec, finest_first
from vertebra.models.layers import BilinearConvTranspose2d, crop_like, normal_fill
from vertebra_fcn.scores import FullSizeHead, WideConv2d, repeating_conv, score_conv

__all__ = ["FCNLightHead", "FCNSumHead"]


class FCNLightHead(FullSizeHead):
    """pool5 upsampled by 2, plus scores of pool4; the sum by 2, plus scores of pool3; that sum by 8.

    On VGG-16 with 12 classes 14,833,776 parameters in all, of which 119,088 here: transposed 4x4 from pool5 to K, 1x1
    scores of pool4, transposed 4x4, 1x1 scores of pool3, and a transposed 8x8. All have a bias but the first.

    Args:
        input_shape: three levels, each of twice the stride of the one before; the finest is upsampled to the image.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.levels = _three_levels("FCNLightHead", input_shape)
        fine, middle, coarse = (input_shape[name] for name in self.levels)
        self.upscore_coarse = nn.ConvTranspose2d(coarse.channels, num_classes, 4, stride=2, padding=1, bias=False)
        self.score_middle = score_conv(middle.channels, num_classes)
        self.upscore_middle = BilinearConvTranspose2d(num_classes, 2, bias=True)
        self.score_fine = score_conv(fine.channels, num_classes)
        self.upscore_fine = repeating_conv(num_classes, fine.stride, bias=True)
        normal_fill(self.upscore_coarse, std=(coarse.channels * 4) ** -0.5)  # 4 cells meet in each output

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, ceil(H / s_l), ceil(W / s_l))} -> scores (N, K, s ceil(H / s), s ceil(W / s))."""
        fine, middle, coarse = (features[name] for name in self.levels)
        middle = self.score_middle(middle)
        middle = middle + crop_like(self.upscore_coarse(coarse), middle, offset=0)
        fine = self.score_fine(fine)
        return self.upscore_fine(fine + crop_like(self.upscore_middle(middle), fine, offset=0))


class FCNSumHead(FullSizeHead):
    """conv7 upsampled by 4, scores of pool4 by 2 and scores of pool3, summed at once, and the sum upsampled by 8.

    On VGG-16 with 2 classes 134,393,428 parameters in all: conv6 7x7 and conv7 1x1 of 4096 channels with biases, a
    transposed 4x4 from conv7 to K, 1x1 scores of pool4 and pool3 with biases, transposed 2x2 and 8x8; none of the
    transposed ones has a bias, and none overlaps.

    Args:
        input_shape: three levels, each of twice the stride of the one before; the finest is upsampled to the image.
        conv_channels: of conv6 and conv7, each with ReLU.
        dropout: share of the channels of conv6 and conv7 set to 0 in training.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        conv_channels: int = 4096,
        dropout: float = 0.0,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.levels = _three_levels("FCNSumHead", input_shape)
        fine, middle, coarse = (input_shape[name] for name in self.levels)
        self.conv6 = WideConv2d(coarse.channels, conv_channels, 7)
        self.conv7 = WideConv2d(conv_channels, conv_channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.upscore_coarse = nn.ConvTranspose2d(conv_channels, num_classes, 4, stride=4, bias=False)
        self.score_middle = score_conv(middle.channels, num_classes)
        self.upscore_middle = repeating_conv(num_classes, 2)
        self.score_fine = score_conv(fine.channels, num_classes)
        self.upscore_fine = repeating_conv(num_classes, fine.stride)
        nn.init.normal_(self.upscore_coarse.weight, std=conv_channels**-0.5)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, ceil(H / s_l), ceil(W / s_l))} -> scores (N, K, s ceil(H / s), s ceil(W / s))."""
        fine, middle, coarse = (features[name] for name in self.levels)
        coarse = self.dropout(self.conv6(coarse).relu_())
        coarse = self.dropout(self.conv7(coarse).relu_())
        fine = self.score_fine(fine)
        middle = self.upscore_middle(self.score_middle(middle))
        coarse = self.upscore_coarse(coarse)
        return self.upscore_fine(fine + crop_like(middle, fine, offset=0) + crop_like(coarse, fine, offset=0))


def _three_levels(head: str, input_shape: dict[str, ShapeSpec]) -> list[str]:
    """Names of the levels, finest first."""
    names = finest_first(head, input_shape, argument="out_features", doubling=True)
    if len(names) != 3:
        raise ValueError(f"{head} needs three levels (pool3, pool4, pool5 of a VGG), got {', '.join(names)}")
    return names
