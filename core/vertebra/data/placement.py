"""Where transforms have put an image: what predictions need to be mapped back to it."""

from __future__ import annotations

import numpy as np

from vertebra.data.transforms.sample import Sample
from vertebra.errors import RecipeError

__all__ = ["content_size"]


def content_size(sample: Sample, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the upper left part of a transformed sample that the whole image fills; the rest is padding.

    Predictions are mapped back to the image by scale alone, so an image may be resized, and padded on the right and
    below.

    Args:
        height, width: of the image before the transforms, in pixels.
    Raises:
        RecipeError: the image has been moved, cut, mirrored or turned.
    """
    x, y = np.nan_to_num(np.diag(sample.matrix)[:2])  # NaN where no matrix says it: the image is bent
    content = round(y * height), round(x * width)
    expected = np.diag([content[1] / width, content[0] / height, 1.0])
    fits = 0 < content[0] <= sample.size[0] and 0 < content[1] <= sample.size[1]
    if not fits or not np.allclose(sample.matrix, expected):
        raise RecipeError(
            "the transforms move, cut or turn the image, but predictions are mapped back by scale alone.\n"
            "  For evaluation and prediction (data.eval_transforms) use transforms that resize, and pad on the right "
            "and below only: ResizeShortestEdge, ResizeStretch, ResizeLetterbox without `center`"
        )
    return content
