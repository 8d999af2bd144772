"""Scores of a network with valid convolutions: which pixels of the images they are for.

They are either for the images' middle, a margin on every side being lost, or, where the encoder mirrored the images,
for all of them and a few pixels beyond the bottom and right. Which of the two their size alone tells.
"""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Batch

__all__ = ["cover", "covered_labels"]


def covered_labels(scores: Tensor, batch: Batch, margin: int) -> tuple[Tensor, Batch]:
    """Scores (N, K, h, w) and a batch whose labels are those of the same pixels.

    Args:
        margin: input pixels lost on every side, unless the encoder mirrored the images.
    """
    top, left, height, width = _window(scores, batch.padded_size, margin)
    scores = scores[..., :height, :width]
    if batch.sem_seg is None:
        return scores, batch
    return scores, replace(batch, sem_seg=batch.sem_seg[:, top : top + height, left : left + width])


def cover(scores: Tensor, size: tuple[int, int], margin: int) -> Tensor:
    """Scores (N, K, h, w) to (N, K, *size): what is lost repeats the nearest score, what is beyond is cut off."""
    top, left, height, width = _window(scores, size, margin)
    below, right = size[0] - top - height, size[1] - left - width
    return F.pad(scores[..., :height, :width], (left, right, top, below), mode="replicate")


def _window(scores: Tensor, size: tuple[int, int], margin: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the pixels that have scores, in an image of `size` (height, width)."""
    h, w = scores.shape[-2:]
    top, left = (0 if have >= want else margin for have, want in zip((h, w), size, strict=True))
    if size[0] <= top or size[1] <= left:
        raise DataError(
            f"an image of {size[0]} x {size[1]} pixels (height x width, padded) has no pixel with a score: the valid "
            f"convolutions lose {margin} on every side, and `border: keep` adds no surroundings.\n"
            "  Give the encoder `border: mirror`, or larger images or tiles"
        )
    return top, left, min(h, size[0] - top), min(w, size[1] - left)
