"""The semantic branch of Panoptic-DeepLab (arXiv:1911.10194, section 3.1): a class a pixel, things among them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vertebra.models import Loss, SemanticHead, ShapeSpec
from vertebra.models.layers import NormName
from vertebra.models.losses import HardPixelCrossEntropy
from vertebra_panoptic.decoder import PanopticDecoder, prediction_branch

__all__ = ["PanopticDeepLabSemSegHead"]


class PanopticDeepLabSemSegHead(SemanticHead):
    """`sem_seg` scores (K, height, width) by a decoder of its own.

    Args:
        in_features: levels to use, see `PanopticDecoder`.
        aspp_channels, aspp_rates, aspp_dropout: of the pooling of the coarsest level.
        project_channels: of the finer levels' projections, finest first.
        decoder_channels: of the decoder's maps. head_channels: of the last map before the scores.
        norm: of every convolution.
        loss, loss_weight: see `SemanticHead`. None: HardPixelCrossEntropy(), the hardest fifth.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_features: list[str] | None = None,
        aspp_channels: int = 256,
        aspp_rates: Sequence[int] = (6, 12, 18),
        aspp_dropout: float = 0.1,
        project_channels: Sequence[int] = (32, 64),
        decoder_channels: int = 256,
        head_channels: int = 256,
        norm: NormName = "bn",
        loss: Loss | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss=HardPixelCrossEntropy() if loss is None else loss, loss_weight=loss_weight)
        self.decoder = PanopticDecoder(
            input_shape,
            in_features,
            aspp_channels=aspp_channels,
            aspp_rates=list(aspp_rates),
            aspp_dropout=aspp_dropout,
            project_channels=list(project_channels),
            decoder_channels=decoder_channels,
            norm=norm,
        )
        self.predictor = prediction_branch(self.decoder.out_channels, head_channels, num_classes, norm)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to scores (N, K, H/s, W/s) at the finest stride s."""
        return self.predictor(self.decoder(features))
