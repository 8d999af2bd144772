"""FCN on a dilated network, as torchvision has it: a 3x3 convolution and a score for each cell, upsampled bilinearly.

Source of the form: torchvision's `fcn_resnet50` and `fcn_resnet101`; of the idea: arXiv:1411.4038.
Letters: N images, K classes, H x W padded input pixels; the level has C channels and stride s.
"""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.models import Loss, SemanticHead, ShapeSpec, chosen_level
from vertebra.models.layers import ConvNorm, NormName, msra_fill, normal_fill

__all__ = ["FCNConvHead"]


class FCNConvHead(SemanticHead):
    """Scores of one level: 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, 1x1 convolution.

    Also the usual auxiliary head: on res4, `training_only: true`, `loss_weight: 0.5`.

    Args:
        in_feature: the level; None: the coarsest, and of several the one with the most channels.
        norm: behind the 3x3 convolution.
        dropout: share of the values set to 0 in training.
        loss, loss_weight, training_only: see `SemanticHead`. The weights of an auxiliary head are torchvision's
            `aux_classifier`, otherwise `classifier`.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_feature: str | None = None,
        norm: NormName = "bn",
        dropout: float = 0.1,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        if in_feature is None:
            in_feature = max(input_shape, key=lambda name: (input_shape[name].stride, input_shape[name].channels))
        self.in_feature = chosen_level("FCNConvHead", input_shape, in_feature)
        channels = input_shape[in_feature].channels
        self.conv = ConvNorm(channels, channels // 4, 3, norm=norm, relu=True)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(channels // 4, num_classes, 1)
        msra_fill(self.conv)
        normal_fill(self.score, std=0.01)
        theirs = "aux_classifier" if training_only else "classifier"
        self.torchvision_names = (
            (rf"{theirs}\.0\.(\w+)", r"conv.\1"),
            (rf"{theirs}\.1\.(\w+)", r"conv.norm.\1"),
            (rf"{theirs}\.4\.(\w+)", r"score.\1"),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H / s_l, W / s_l)} -> scores (N, K, H / s, W / s)."""
        return self.score(self.dropout(self.conv(features[self.in_feature])))
