"""SemanticHead and what it is made of: from scores at any resolution to a loss, and to `sem_seg` in the original size.

Letters: N images, K classes, H x W padded input pixels, h x w cells of the scores.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from vertebra.config.component import described, where_written
from vertebra.detection import sem_seg_postprocess
from vertebra.errors import DataError, PluginError
from vertebra.models.batch import Batch
from vertebra.models.contracts import Head, Loss, check_num_classes
from vertebra.models.layers.upsampling import resize
from vertebra.models.losses.classification import CrossEntropy

__all__ = ["SemanticHead", "exported_labels", "exported_scores", "semantic_losses", "semantic_predictions"]


class SemanticHead(Head):
    """Semantic segmentation: subclasses implement `forward`, which gives logits (N, K, h, w) at any resolution.

    `predict` gives `sem_seg` (K, height, width), logits in the original size. A head whose `forward` gives something
    else says in `class_scores` how it becomes such logits. A pixel labeled 255 has no loss; a batch of such pixels
    alone gives the loss 0.

    Args:
        num_classes: K, at least 1.
        loss: takes logits (N, K, H, W) and labels (N, H, W), 255 where a pixel has none. None: CrossEntropy().
        loss_weight: factor of the loss.
        training_only: an auxiliary head, skipped when the model predicts.
    """

    task_outputs: ClassVar = ("sem_seg",)
    labels: ClassVar = "stuff"

    def __init__(
        self, num_classes: int, *, loss: Loss | None = None, loss_weight: float = 1.0, training_only: bool = False
    ) -> None:
        super().__init__()
        check_num_classes(self, num_classes)
        self.loss = CrossEntropy() if loss is None else loss
        self.loss_weight = loss_weight
        self.training_only = training_only

    def class_scores(self, raw: Any, image_size: tuple[int, int]) -> Tensor:
        """Raw outputs to logits (N, K, h, w) over the whole of the padded input; as they are by default.

        Args:
            image_size: (H, W) of the padded input, in pixels; symbols in an export.
        """
        return raw

    def losses(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """`loss_sem_seg` over the labeled pixels, at the labels' resolution."""
        return semantic_losses(self._scores(raw, batch.padded_size), batch, self.loss, self.loss_weight)

    def predict(self, raw: Any, batch: Batch) -> list[dict]:
        """`sem_seg` (K, height, width) per image: logits in the original size."""
        return semantic_predictions(self._scores(raw, batch.padded_size), batch)

    def _scores(self, raw: Any, image_size: tuple[int, int]) -> Tensor:
        scores = self.class_scores(raw, image_size)
        if not isinstance(scores, Tensor) or scores.dim() != 4:
            raise PluginError(
                f"{where_written(self, type(self).__name__)}: forward must return class scores (N, K, h, w), got "
                f"{described(scores)}.\n  Where raw outputs are something else, override class_scores(raw, image_size)"
            )
        return scores

    def export_raw(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`sem_seg_scores` (N, K, H, W): logits at the input's size."""
        return exported_scores(self._scores(raw, image_size), image_size)

    def export_predictions(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`sem_seg` (N, H, W) int64, the best class of each input pixel."""
        return {"sem_seg": self.export_raw(raw, image_size)["sem_seg_scores"].argmax(dim=1)}


def semantic_losses(
    scores: Tensor, batch: Batch, loss: Loss, loss_weight: float = 1.0, name: str = "loss_sem_seg"
) -> dict[str, Tensor]:
    """The weighted loss of class scores (N, K, h, w), resized bilinearly to the labels (N, H, W).

    Args:
        loss: called with logits (N, K, H, W) and labels (N, H, W) int64, 255 where a pixel is ignored; a scalar.
        name: of the loss.
    Raises:
        DataError: no input of the batch has `sem_seg`.
    """
    if batch.sem_seg is None:
        raise DataError(
            "a semantic head learns from labels of pixels, but no input of the batch has `sem_seg`; the dicts of a "
            "dataset to train on need the key `sem_seg_file_name` (or a transform or mapper that sets `sem_seg`)"
        )
    size = (batch.sem_seg.shape[-2], batch.sem_seg.shape[-1])
    if scores.shape[-2:] != size:  # the loss wants each class's map in one piece: cheaper to arrange while it is small
        scores = resize(scores.contiguous(), size)
    return {name: loss(scores, batch.sem_seg) * loss_weight}


def semantic_predictions(scores: Tensor, batch: Batch) -> list[dict[str, Tensor]]:
    """One `sem_seg` (K, height, width) per image, in its original size, from scores (N, K, h, w).

    The scores are resized to the padded input, cut to the image and resized to the requested size, all bilinearly.
    They stay what they were: logits for a head that gives logits.
    """
    scores = resize(scores, batch.padded_size).float()
    return [
        {"sem_seg": one[:, : size[0], : size[1]] if size == original else sem_seg_postprocess(one, size, *original)}
        for one, size, original in zip(scores, batch.image_sizes, batch.original_sizes, strict=True)
    ]


def exported_scores(scores: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """`export_raw` of a semantic head: `sem_seg_scores` (N, K, H, W), resized from (N, K, h, w) to the input."""
    return {"sem_seg_scores": F.interpolate(scores.float(), size=image_size, mode="bilinear", align_corners=False)}


def exported_labels(scores: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """`export_predictions` of a semantic head: `sem_seg` (N, H, W) int64, the best class of each input pixel."""
    return {"sem_seg": exported_scores(scores, image_size)["sem_seg_scores"].argmax(dim=1)}
