"""The instance branch of Panoptic-DeepLab: where centers are, and which way from each pixel its own center is.

Source: Cheng et al., "Panoptic-DeepLab", arXiv:1911.10194, sections 3.1 and 3.3: heat by mean squared error, weight
200; offsets of the pixels of instances by L1, weight 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from vertebra.models import Batch, Head, ShapeSpec
from vertebra.models.layers import NormName, resize
from vertebra_panoptic.combined_ids import num_thing_labels
from vertebra_panoptic.decoder import PanopticDecoder, prediction_branch
from vertebra_panoptic.targets import center_targets

__all__ = ["CenterOffsetHead", "CenterOffsetRaw"]


class CenterOffsetRaw(NamedTuple):
    """What the head computes, at the finest stride s of its levels.

    Args:
        centers: (N, 1, H/s, W/s), heat.
        offsets: (N, 2, H/s, W/s), y and x to the center, in cells.
    """

    centers: Tensor
    offsets: Tensor


class CenterOffsetHead(Head):
    """Class-agnostic instances as `centers` (1, height, width) and `offsets` (2, height, width), in pixels.

    To be merged with semantic labels by `GroupCenters`.

    Args:
        in_features: levels to use, see `PanopticDecoder`.
        aspp_channels, aspp_rates, aspp_dropout: of the pooling of the coarsest level.
        project_channels: of the finer levels' projections, finest first.
        decoder_channels: of the decoder's maps. head_channels: of the last maps before heat and offsets.
        norm: of every convolution.
        sigma: deviation of a center's Gaussian, in input pixels.
        center_weight, offset_weight: factors of the two losses.
        metadata: injected; the dataset's, which tells the semantic labels of things, for crowds (see `center_targets`).
    """

    task_outputs: ClassVar = ("centers", "offsets")

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str] | None = None,
        aspp_channels: int = 256,
        aspp_rates: Sequence[int] = (6, 12, 18),
        aspp_dropout: float = 0.1,
        project_channels: Sequence[int] = (16, 32),
        decoder_channels: int = 128,
        head_channels: int = 32,
        norm: NormName = "bn",
        sigma: float = 8.0,
        center_weight: float = 200.0,
        offset_weight: float = 0.01,
        metadata: Any = None,
    ) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"CenterOffsetHead: sigma is {sigma}; it must be above 0 pixels")
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
        self.center_predictor = prediction_branch(self.decoder.out_channels, head_channels, 1, norm)
        self.offset_predictor = prediction_branch(self.decoder.out_channels, head_channels, 2, norm)
        self.sigma = sigma
        self.thing_labels = num_thing_labels(metadata)
        self.center_weight = center_weight
        self.offset_weight = offset_weight

    def forward(self, features: dict[str, Tensor]) -> CenterOffsetRaw:
        x = self.decoder(features)
        return CenterOffsetRaw(self.center_predictor(x), self.offset_predictor(x))

    def losses(self, raw: CenterOffsetRaw, batch: Batch) -> dict[str, Tensor]:
        """`loss_center`, the mean over pixels that are not ignored; `loss_offset`, over those of instances."""
        targets = center_targets(batch, self.sigma, self.thing_labels)
        size = batch.padded_size
        heat = resize(raw.centers, size)[:, 0].float()
        offsets = resize(raw.offsets, size).float() * self.decoder.stride
        center = (F.mse_loss(heat, targets.heat, reduction="none") * targets.known).sum()
        offset = (F.l1_loss(offsets, targets.offsets, reduction="none") * targets.owned[:, None]).sum()
        return {
            "loss_center": center / targets.known.sum().clamp(min=1) * self.center_weight,
            "loss_offset": offset / targets.owned.sum().clamp(min=1) * self.offset_weight,
        }

    def predict(self, raw: CenterOffsetRaw, batch: Batch) -> list[dict]:
        centers = resize(raw.centers, batch.padded_size).float()
        offsets = resize(raw.offsets, batch.padded_size).float() * self.decoder.stride
        outputs = []
        for heat, offset, (h, w), (height, width) in zip(
            centers, offsets, batch.image_sizes, batch.original_sizes, strict=True
        ):
            heat, offset = heat[:, :h, :w], offset[:, :h, :w]
            if (h, w) != (height, width):
                heat, offset = (resize(x[None], (height, width))[0] for x in (heat, offset))
                offset = offset * offset.new_tensor([height / h, width / w])[:, None, None]
            outputs.append({"centers": heat, "offsets": offset})
        return outputs
