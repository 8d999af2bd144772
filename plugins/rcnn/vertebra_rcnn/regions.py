"""What flows between the parts of a two-stage head: proposals, regions to learn from, and the truth they are held to.

Letters: N images, P proposals of the image with most of them, M ground-truth boxes in the fullest image, T regions of
all images together, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vertebra.models import Batch

__all__ = ["Proposals", "Regions", "Truth", "rois_of"]


class Proposals(NamedTuple):
    """Boxes that may hold an object, for each image as many rows; rows that are not valid only fill up."""

    boxes: Tensor
    """(N, P, 4) `xyxy`, input pixels."""
    logits: Tensor
    """(N, P) how likely each holds an object, before the sigmoid."""
    valid: Tensor
    """(N, P) bool."""


class Truth(NamedTuple):
    """The ground-truth boxes of a batch; those without area do not count."""

    boxes: Tensor
    """(N, M, 4) `xyxy`, input pixels."""
    classes: Tensor
    """(N, M) int64 in [0, K)."""
    valid: Tensor
    """(N, M) bool."""
    image_sizes: Tensor
    """(N, 2) width and height of each image, in input pixels."""

    @classmethod
    def of(cls, batch: Batch, who: str) -> Truth:
        """The batch's; `who` asks for it, for the message where there is none.

        Raises:
            DataError: no input of the batch has `instances`.
        """
        boxes, classes, valid = batch.ground_truth(who)
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        sizes = torch.tensor([(width, height) for height, width in batch.image_sizes], device=batch.device)
        return cls(boxes, classes, valid & has_area, sizes)


class Regions(NamedTuple):
    """The regions that a step of training looks at, image after image; in each image those with an object first."""

    rois: Tensor
    """(T, 5): number of the image in the batch, then `xyxy` in input pixels."""
    classes: Tensor
    """(T,) int64 in [0, K], where K is the background."""
    truth: Tensor
    """(T, 4) `xyxy` of the ground-truth box; of background anything."""
    row: Tensor
    """(T,) int64, which of its image's ground-truth boxes that is; of background anything."""

    @property
    def image(self) -> Tensor:
        """(T,) int64, number of the image in the batch."""
        return self.rois[:, 0].long()

    @property
    def boxes(self) -> Tensor:
        """(T, 4) `xyxy`."""
        return self.rois[:, 1:]

    def take(self, index: Tensor) -> Regions:
        """Those of a bool mask or of indices."""
        return Regions(*(field[index] for field in self))

    def rows_with_object(self, num_classes: int) -> Tensor:
        """(F,) int64, the rows that are not background."""
        return (self.classes < num_classes).nonzero().flatten()


def rois_of(boxes: Tensor, valid: Tensor) -> Tensor:
    """Padded boxes (N, P, 4) with their validity (N, P) to (T, 5): number of the image, then the box."""
    image, row = valid.nonzero(as_tuple=True)
    return torch.cat((image[:, None].to(boxes.dtype), boxes[image, row]), dim=1)
