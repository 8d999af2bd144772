"""FCN on a dilated network, as torchvision has it: a 3x3 convolution and a score for each cell, upsampled bilinearly.

Source of the form: torchvision's `fcn_resnet50` and `fcn_resnet101`; of the idea: arXiv:1411.4038.
Letters: N images, K classes, H x W padded input pixels; the level has C channels and stride s.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vertebra.models import (
    Batch,
    Head,
    Loss,
    ShapeSpec,
    exported_labels,
    exported_scores,
    semantic_losses,
    semantic_predictions,
)
from vertebra.models.layers import ConvNorm, NormName, msra_fill, normal_fill
from vertebra.models.losses import CrossEntropy

__all__ = ["FCNConvHead"]


class FCNConvHead(Head):
    """Scores of one level: 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, 1x1 convolution.

    Also the usual auxiliary head: on res4, `training_only: true`, `loss_weight: 0.5`.

    Args:
        in_feature: the level; None: the coarsest, and of several the one with the most channels.
        norm: behind the 3x3 convolution.
        dropout: share of the values set to 0 in training.
        loss: takes logits (N, K, H, W) and labels (N, H, W), 255 where a pixel has none. None: CrossEntropy().
        loss_weight: factor of the loss.
        training_only: an auxiliary head, skipped when the model predicts; its weights are then torchvision's
            `aux_classifier`, otherwise `classifier`.
    """

    task_outputs: ClassVar = ("sem_seg",)
    labels: ClassVar = "stuff"

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
        super().__init__()
        if in_feature is None:
            in_feature = max(input_shape, key=lambda name: (input_shape[name].stride, input_shape[name].channels))
        if in_feature not in input_shape:
            raise ValueError(f"FCNConvHead: in_feature is {in_feature!r}; there are {', '.join(input_shape)}")
        if num_classes < 1:
            raise ValueError(f"FCNConvHead needs at least one class, num_classes is {num_classes}")
        channels = input_shape[in_feature].channels
        self.in_feature = in_feature
        self.conv = ConvNorm(channels, channels // 4, 3, norm=norm, relu=True)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(channels // 4, num_classes, 1)
        msra_fill(self.conv)
        normal_fill(self.score, std=0.01)
        self.loss = CrossEntropy() if loss is None else loss
        self.loss_weight = loss_weight
        self.training_only = training_only
        theirs = "aux_classifier" if training_only else "classifier"
        self.torchvision_names = (
            (rf"{theirs}\.0\.(\w+)", r"conv.\1"),
            (rf"{theirs}\.1\.(\w+)", r"conv.norm.\1"),
            (rf"{theirs}\.4\.(\w+)", r"score.\1"),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H / s_l, W / s_l)} -> scores (N, K, H / s, W / s)."""
        return self.score(self.dropout(self.conv(features[self.in_feature])))

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss_sem_seg` over the labeled pixels, at the labels' resolution."""
        return semantic_losses(raw, batch, self.loss, self.loss_weight)

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        """`sem_seg` (K, height, width): logits in the original size."""
        return semantic_predictions(raw, batch)

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        return exported_scores(raw, image_size)

    def export_predictions(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        return exported_labels(raw, image_size)
