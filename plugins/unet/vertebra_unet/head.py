"""U-Net's head: a decoder, and a 1x1 convolution that scores each pixel of its finest map.

Source: Ronneberger et al., arXiv:1505.04597, section 2.
Letters: N images, K classes, H x W padded input pixels, h x w cells of the scores.
"""

from typing import ClassVar

from torch import Tensor, nn

from vertebra.models import (
    Batch,
    Head,
    Loss,
    Neck,
    ShapeSpec,
    exported_labels,
    exported_scores,
    semantic_losses,
    semantic_predictions,
)
from vertebra.models.layers import fill_bias
from vertebra.models.losses import CrossEntropy
from vertebra_unet.coverage import cover, covered_labels
from vertebra_unet.decoder import UNetDecoder

__all__ = ["UNetHead"]


class UNetHead(Head):
    """Semantic segmentation; `predict` gives `sem_seg` (K, height, width), logits in the original size.

    A pixel labeled 255 has no loss; an image or a batch of such pixels alone gives the loss 0. Labels outside the
    classes are refused where they are read, before they come here.

    Args:
        decoder: its finest map is scored. None: UNetDecoder(). Any neck fits.
        loss: takes logits (N, K, H, W) and labels (N, H, W), 255 where a pixel has none. None: CrossEntropy().
        loss_weight: factor of the loss.
        training_only: True makes it an auxiliary head, not used in predictions.
    """

    task_outputs: ClassVar = ("sem_seg",)
    labels: ClassVar = "stuff"

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        decoder: Neck | None = None,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"UNetHead needs at least one class, num_classes is {num_classes}")
        self.decoder = UNetDecoder(input_shape) if decoder is None else decoder
        shapes = self.decoder.output_shape()
        self.finest = min(shapes, key=lambda name: shapes[name].stride)
        self.margin = getattr(self.decoder, "margin", 0)  # input pixels on every side that the scores do not cover
        self.score = nn.Conv2d(shapes[self.finest].channels, num_classes, kernel_size=1)
        nn.init.xavier_uniform_(self.score.weight)
        fill_bias(self.score, 0.0)
        self.loss = CrossEntropy() if loss is None else loss
        self.loss_weight = loss_weight
        self.training_only = training_only

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to scores (N, K, H/s, W/s) at the decoder's finest stride s."""
        return self.score(self.decoder(features)[self.finest])

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss_sem_seg`; where valid padding left a margin, of the pixels that have scores."""
        if self.margin:
            raw, batch = covered_labels(raw, batch, self.margin)
        return semantic_losses(raw, batch, self.loss, self.loss_weight)

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        """One `sem_seg` per image. Where valid padding left a margin, it repeats the outermost scores."""
        return semantic_predictions(self._covering(raw, batch.padded_size), batch)

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`sem_seg_scores` (N, K, H, W), logits at the input's size. Valid padding exports for one size alone."""
        return exported_scores(self._covering(raw, image_size), image_size)

    def export_predictions(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`sem_seg` (N, H, W) int64, the best class of each pixel."""
        return exported_labels(self._covering(raw, image_size), image_size)

    def _covering(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        return cover(scores, size, self.margin) if self.margin else scores
