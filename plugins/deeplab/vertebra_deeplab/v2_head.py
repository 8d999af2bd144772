"""DeepLab v1 and v2 heads: dilated 3x3 convolutions with a large field of view, scored and summed.

Source: Chen et al., "DeepLab", arXiv:1606.00915, section 4.1.2 and figure 7: LargeFOV is one branch of rate 12, ASPP-S
four of rates 2, 4, 8, 12, ASPP-L four of rates 6, 12, 18, 24. No normalization, as in the paper; without its CRF.
Letters: N images, K classes, h x w cells of the feature.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vertebra.models import Loss, SemanticHead, ShapeSpec
from vertebra.models.layers import ConvNorm, NormName, msra_fill, normal_fill
from vertebra_deeplab.levels import choose_level
from vertebra_deeplab.v3_head import make_predictor

__all__ = ["DeepLabV2Head"]


class DeepLabV2Head(SemanticHead):
    """DeepLab v1 or v2 on one level.

    Args:
        in_feature: of the backbone; None: the last.
        rates: dilation of each branch, in cells of stride 8. One: LargeFOV.
        hidden_channels: of the two convolutions (3x3 dilated, 1x1) of a branch before its scores, the fc6 and fc7 of
            VGG16; 0: the dilated convolution gives the scores itself, as the paper has it on ResNet-101.
        norm: behind the hidden convolutions; see `get_norm`.
        dropout: behind each hidden convolution.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_feature: str | None = None,
        rates: Sequence[int] = (12,),
        hidden_channels: int = 1024,
        norm: NormName = "none",
        dropout: float = 0.5,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        if not rates or min(rates) < 1:
            raise ValueError(f"DeepLabV2Head: rates are {list(rates)}; it needs one or more of at least 1")
        self.in_feature = choose_level("DeepLabV2Head", input_shape, in_feature)
        channels = input_shape[self.in_feature].channels
        self.branches = nn.ModuleList(
            _branch(channels, hidden_channels, num_classes, rate, norm, dropout) for rate in rates
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{name: (N, C, h, w)} -> scores (N, K, h, w), summed over the branches."""
        x = features[self.in_feature]
        first, *others = self.branches
        scores = first(x)
        for branch in others:
            scores = scores + branch(x)
        return scores


def _branch(
    in_channels: int, hidden: int, num_classes: int, rate: int, norm: NormName, dropout: float
) -> nn.Sequential:
    """fc6, fc7 and fc8 of VGG16 as convolutions, fc6 being 3x3 and dilated; or the dilated one alone."""
    if hidden == 0:
        score = nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate)
        normal_fill(score, std=0.01)
        return nn.Sequential(score)
    fc6 = ConvNorm(in_channels, hidden, 3, dilation=rate, norm=norm, relu=True)
    fc7 = ConvNorm(hidden, hidden, 1, norm=norm, relu=True)
    for conv in (fc6, fc7):
        msra_fill(conv)
    return nn.Sequential(fc6, nn.Dropout(dropout), fc7, nn.Dropout(dropout), make_predictor(hidden, num_classes))
