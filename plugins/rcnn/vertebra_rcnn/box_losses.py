"""How far predicted deltas are from ground-truth boxes: on the deltas, or on the boxes that they give."""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.detection import Box2BoxTransform
from vertebra.models import Loss
from vertebra.models.losses import check_unreduced

__all__ = ["BoxRegression"]


class BoxRegression(nn.Module):
    """A box coder and the loss that fits it.

    Args:
        coder: boxes to deltas and back.
        loss: without reduction; on deltas, element by element, or with an attribute `on_boxes` that is true
            (IoU, GIoU, DIoU, CIoU) on decoded boxes.
    """

    def __init__(self, coder: Box2BoxTransform, loss: Loss) -> None:
        super().__init__()
        check_unreduced("a box regression", loss)
        self.coder = coder
        self.loss = loss

    def forward(self, deltas: Tensor, sources: Tensor, truth: Tensor) -> Tensor:
        """Predicted deltas, the boxes they start from, and the ground-truth boxes, (T, 4) each, to unreduced losses."""
        if getattr(self.loss, "on_boxes", False):
            return self.loss(self.coder.apply_deltas(deltas, sources), truth)
        return self.loss(deltas.float(), self.coder.get_deltas(sources, truth))
