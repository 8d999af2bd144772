"""U-Net's head: a decoder, and a 1x1 convolution that scores each pixel of its finest map.

Source: Ronneberger et al., arXiv:1505.04597, section 2.
Letters: N images, K classes, H x W padded input pixels, h x w cells of the scores.
"""

from torch import Tensor, nn

from vertebra.models import Batch, Loss, Neck, SemanticHead, ShapeSpec, semantic_losses
from vertebra.models.layers import fill_bias
from vertebra_unet.coverage import cover, covered_labels
from vertebra_unet.decoder import UNetDecoder

__all__ = ["UNetHead"]


class UNetHead(SemanticHead):
    """A decoder, and a score for each pixel of its finest map.

    Where valid padding left a margin without scores, the loss is of the pixels that have some, and a prediction repeats
    the outermost ones; such a head exports for one size alone.

    Args:
        decoder: its finest map is scored. None: UNetDecoder(). Any neck fits.
        loss, loss_weight, training_only: see `SemanticHead`.
    """

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
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.decoder = UNetDecoder(input_shape) if decoder is None else decoder
        shapes = self.decoder.output_shape()
        self.finest = min(shapes, key=lambda name: shapes[name].stride)
        self.margin = getattr(self.decoder, "margin", 0)  # input pixels on every side that the scores do not cover
        self.score = nn.Conv2d(shapes[self.finest].channels, num_classes, kernel_size=1)
        nn.init.xavier_uniform_(self.score.weight)
        fill_bias(self.score, 0.0)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H/s_l, W/s_l)} to scores (N, K, H/s, W/s) at the decoder's finest stride s."""
        return self.score(self.decoder(features)[self.finest])

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss_sem_seg`; where valid padding left a margin, of the pixels that have scores."""
        if self.margin:
            raw, batch = covered_labels(raw, batch, self.margin)
        return semantic_losses(raw, batch, self.loss, self.loss_weight)

    def class_scores(self, raw: Tensor, image_size: tuple[int, int]) -> Tensor:
        return cover(raw, image_size, self.margin) if self.margin else raw
