"""MultiScaleFlip: the mean over several sizes of an image and its mirror images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from vertebra.models.inference.mode import InferenceMode, Predict, image_of, scores_of, view_of
from vertebra.structures.resize import resize_pixels

__all__ = ["MultiScaleFlip"]


class MultiScaleFlip(InferenceMode):
    """Predict an image at several scales, mirrored too, and average the scores.

    Source: Chen et al., "Rethinking Atrous Convolution", arXiv:1706.05587, section 4.1: scales 0.5 to 1.75 in steps of
    a quarter, left-right flipped. With scales [1.0] and no flip the result is that of plain inference, bit for bit.

    Args:
        scales: of the image as the evaluation transforms give it.
        flip: also left and right exchanged.
        vertical_flip: also top and bottom exchanged, for images that have no up and down; with `flip`, both too.
        average: of `scores` as the head gives them, or of `probabilities`: then the result is the logarithm of the mean
            softmax, so that a softmax gives the mean back.
    """

    def __init__(
        self,
        scales: Sequence[float] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        *,
        flip: bool = True,
        vertical_flip: bool = False,
        average: Literal["scores", "probabilities"] = "scores",
    ) -> None:
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales is {list(scales)}, expected numbers above 0, at least one")
        if average not in ("scores", "probabilities"):
            raise ValueError(f"average is {average!r}, expected 'scores' or 'probabilities'")
        self.scales = tuple(scales)
        self.flips = [
            axes
            for axes, wanted in (((), True), ((-1,), flip), ((-2,), vertical_flip), ((-2, -1), flip and vertical_flip))
            if wanted
        ]
        self.average = average

    def __call__(self, predict: Predict, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.scales == (1.0,) and self.flips == [()]:
            return predict(inputs)
        return [{"sem_seg": self._mean_scores(predict, sample)} for sample in inputs]

    def _mean_scores(self, predict: Predict, sample: dict[str, Any]) -> Tensor:
        """(K, height, width) float32."""
        mean = reduce(Tensor.add_, self._scores(predict, sample)) / (len(self.scales) * len(self.flips))
        return mean if self.average == "scores" else mean.clamp_(min=torch.finfo(mean.dtype).tiny).log_()

    def _scores(self, predict: Predict, sample: dict[str, Any]) -> Iterator[Tensor]:
        """What is averaged: (K, height, width) float32 of each scale and mirror image."""
        image = image_of(sample)
        size = int(sample.get("height", image.shape[-2])), int(sample.get("width", image.shape[-1]))
        for scale in self.scales:
            scaled = _scaled(image, scale)
            views = [view_of(sample, scaled.flip(axes), size) for axes in self.flips]
            for axes, output in zip(self.flips, predict(views), strict=True):
                scores = scores_of(output, size, "MultiScaleFlip").flip(axes)
                yield scores.softmax(dim=0) if self.average == "probabilities" else scores


def _scaled(image: Tensor, scale: float) -> Tensor:
    """An image (3, H, W) at another scale, with antialiasing; at least one pixel."""
    height, width = (max(round(side * scale), 1) for side in image.shape[-2:])
    return resize_pixels(image, (height, width), smooth=True)
