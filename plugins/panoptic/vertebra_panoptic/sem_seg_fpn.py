"""The semantic branch of Panoptic FPN.

Source: Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv:1901.02446, section 3 and figure 3: each level goes
through 3x3 convolution, group norm, ReLU and bilinear doubling until it has the finest stride; their sum is scored.
"""

from __future__ import annotations

import math
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
from vertebra.models.layers import ConvNorm, NormName, Upsample, msra_fill
from vertebra.models.losses import CrossEntropy

__all__ = ["SemSegFPNHead"]


class SemSegFPNHead(Head):
    """`sem_seg` scores (K, height, width) from the levels of a pyramid.

    Args:
        in_features: levels to use, in any order. None: all up to stride 32.
        conv_channels: of the convolutions.
        common_stride: of the sum, in input pixels.
        norm: behind each convolution.
        loss: takes scores (N, K, H, W) and labels (N, H, W). None: CrossEntropy().
        loss_weight: factor of the loss.
        training_only: no part of predictions.
    """

    detectron2_names: ClassVar = ((r"sem_seg_head\.((?:p\d|res\d|predictor)\..+)", r"\1"),)
    task_outputs: ClassVar = ("sem_seg",)
    labels: ClassVar = "stuff"

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_features: list[str] | None = None,
        conv_channels: int = 128,
        common_stride: int = 4,
        norm: NormName = "gn",
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__()
        self.levels = _levels(input_shape, in_features, common_stride)
        for name in self.levels:
            doublings = round(math.log2(input_shape[name].stride / common_stride))
            layers: list[nn.Module] = []
            channels = input_shape[name].channels
            for number in range(max(1, doublings)):
                conv = ConvNorm(channels if number == 0 else conv_channels, conv_channels, 3, norm=norm, relu=True)
                msra_fill(conv)
                layers.append(conv)
                if number < doublings:
                    layers.append(Upsample(2, "bilinear"))
            self.add_module(name, nn.Sequential(*layers))
        self.predictor = nn.Conv2d(conv_channels, num_classes, kernel_size=1)
        msra_fill(self.predictor)
        self.loss = CrossEntropy() if loss is None else loss
        self.loss_weight = loss_weight
        self.training_only = training_only

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to scores (N, K, H/s, W/s) at the common stride s."""
        total = None
        for name in self.levels:
            x = getattr(self, name)(features[name])
            total = x if total is None else total + x
        return self.predictor(total)

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return semantic_losses(raw, batch, self.loss, self.loss_weight)

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        return semantic_predictions(raw, batch)

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        return exported_scores(raw, image_size)

    def export_predictions(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        return exported_labels(raw, image_size)


def _levels(input_shape: dict[str, ShapeSpec], wanted: list[str] | None, common_stride: int) -> list[str]:
    """The levels finest first, each a power of two coarser than the common stride."""
    if wanted is None:
        wanted = [name for name, shape in input_shape.items() if common_stride <= shape.stride <= 32]
    unknown = [name for name in wanted if name not in input_shape]
    if unknown or not wanted:
        raise ValueError(
            f"SemSegFPNHead: in_features {wanted} must be some of the features there are: {', '.join(input_shape)}"
        )
    for name in wanted:
        times = input_shape[name].stride / common_stride
        if times < 1 or not math.log2(times).is_integer():
            raise ValueError(
                f"SemSegFPNHead: level {name} has stride {input_shape[name].stride}, which is not common_stride "
                f"{common_stride} doubled any number of times"
            )
    return sorted(wanted, key=lambda name: input_shape[name].stride)
