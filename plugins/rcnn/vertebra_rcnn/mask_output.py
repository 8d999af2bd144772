"""What predicted masks become: pixels of the whole image, or run lengths, which take no memory to speak of."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vertebra.structures import Boxes, paste_masks_as_rle, paste_masks_in_image

__all__ = ["BitmapOutput", "MaskOutput", "RunLengthOutput"]


class MaskOutput:
    """Masks in the frame of their boxes to the field `pred_masks`.

    Args:
        threshold: a pixel belongs to the object from this probability on.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"{type(self).__name__}: threshold is {threshold}, must be a probability")
        self.threshold = threshold

    def __call__(self, masks: Tensor, boxes: Boxes, size: tuple[int, int]) -> Any:
        """Probabilities (n, S, S) and boxes in pixels of an image of `size` (height, width)."""
        raise NotImplementedError


class BitmapOutput(MaskOutput):
    """(n, height, width) bool, as Detectron2 gives them: a byte a pixel and object."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)

    def __call__(self, masks: Tensor, boxes: Boxes, size: tuple[int, int]) -> Tensor:
        return paste_masks_in_image(masks, boxes, size, self.threshold)


class RunLengthOutput(MaskOutput):
    """A list of n COCO run lengths {"size": [height, width], "counts": text}: for large images with many objects."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__(threshold)

    def __call__(self, masks: Tensor, boxes: Boxes, size: tuple[int, int]) -> list[dict[str, Any]]:
        return paste_masks_as_rle(masks, boxes, size, self.threshold)
