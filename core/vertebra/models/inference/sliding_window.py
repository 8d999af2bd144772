"""SlidingWindow: an image of any size through a model in windows of one size.

Letters: K classes, H x W pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from vertebra.detection import sem_seg_postprocess
from vertebra.models.inference.mode import InferenceMode, Predict, image_of, scores_of, view_of

__all__ = ["SlidingWindow"]


class SlidingWindow(InferenceMode):
    """Predict windows that overlap and average the scores where they do.

    Memory beside the model's is that of one image's scores, (K, H, W) float32, whatever the number of windows. Where
    the image fits into one window, the result is that of plain inference, bit for bit.

    Args:
        window: [height, width] in pixels of what the model sees at once, or one number for a square.
        overlap: part of a window that its neighbors share, from 0 to below 1. The last window of a row or column is
            moved back so that it ends with the image.
        batch_size: windows that go through the model together.
        blending: `uniform` weighs all pixels of a window alike, `gaussian` those in the middle most, with a deviation
            of an eighth of the window (Isensee et al., "nnU-Net", Nature Methods 18, 2021).
        borders: `shift`: windows lie inside the image, and are smaller where the image is. `mirror`: every window has
            the full size, and what it sees beyond the image is its mirror image.
        margin: for `mirror`: pixels at each edge of a window whose scores are not used. So a network without padding
            sees true or mirrored surroundings of every pixel: U-Net's overlap-tile strategy (Ronneberger et al.,
            arXiv:1505.04597, figure 2) is window 572, margin 92, overlap 0.
    """

    def __init__(
        self,
        window: list[int] | int,
        *,
        overlap: float = 0.5,
        batch_size: int = 1,
        blending: Literal["uniform", "gaussian"] = "uniform",
        borders: Literal["shift", "mirror"] = "shift",
        margin: int = 0,
    ) -> None:
        sides = [window, window] if isinstance(window, int) else list(window)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"window is {window}, expected [height, width] of at least 1, or one number")
        if not 0 <= overlap < 1 or batch_size < 1:
            raise ValueError(f"overlap is {overlap} and batch_size {batch_size}, expected [0, 1) and at least 1")
        if blending not in ("uniform", "gaussian") or borders not in ("shift", "mirror"):
            raise ValueError(
                f"blending is {blending!r} and borders {borders!r}, expected 'uniform' or 'gaussian', and 'shift' or "
                "'mirror'"
            )
        if margin < 0 or 2 * margin >= min(sides) or (margin and borders == "shift"):
            raise ValueError(
                f"margin is {margin} for a window of {sides} and borders {borders!r}; expected at least 0, less than "
                "half of the window, and 0 for borders 'shift'"
            )
        self.window = (sides[0], sides[1])
        self.overlap = overlap
        self.batch_size = batch_size
        self.blending = blending
        self.mirror = borders == "mirror"
        self.margin = margin

    def __call__(self, predict: Predict, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._predict_one(predict, sample) for sample in inputs]

    def _predict_one(self, predict: Predict, sample: dict[str, Any]) -> dict[str, Any]:
        image = image_of(sample)
        size = (image.shape[-2], image.shape[-1])
        if not self.mirror and size[0] <= self.window[0] and size[1] <= self.window[1]:
            return predict([sample])[0]
        rows, columns = (self._axis(side, window) for side, window in zip(size, self.window, strict=True))
        total: Tensor | None = None
        for batch in _batches([(row, column) for row in rows for column in columns], self.batch_size):
            images = [_tile(image, *place) for place in batch]
            tiles = [view_of(sample, tile, (tile.shape[-2], tile.shape[-1])) for tile in images]
            for (row, column), tile, output in zip(batch, tiles, predict(tiles), strict=True):
                scores = scores_of(output, (tile["height"], tile["width"]), "SlidingWindow")
                if total is None:
                    total = scores.new_zeros(len(scores), *size)
                _add(total, scores, row, column)
        assert total is not None  # every image has a window
        asked = int(sample.get("height", size[0])), int(sample.get("width", size[1]))
        return {"sem_seg": total if asked == size else sem_seg_postprocess(total, size, *asked)}

    def _axis(self, side: int, window: int) -> list[_Span]:
        """The windows along one axis of an image of `side` pixels."""
        seen = window if self.mirror else min(window, side)
        kept = seen - 2 * self.margin
        stride = max(round(kept * (1 - self.overlap)), 1)
        count = math.ceil(max(side - kept, 0) / stride) + 1
        starts = [min(number * stride, max(side - kept, 0)) for number in range(count)]
        profile = _profile(kept, self.blending)
        weight = torch.zeros(side, dtype=torch.float64)
        for start in starts:
            weight[start : start + kept] += profile[: side - start]
        spans = []
        for start in starts:
            end = min(start + kept, side)
            share = (profile[: end - start] / weight[start:end]).float()  # shares of all windows add up to 1
            spans.append(_Span(start, end, self.margin, _mirrored(start - self.margin, seen, side), share))
        return spans


class _Span:
    """One window along one axis.

    Args:
        start, end: pixels of the image whose scores it gives.
        offset: where these lie in the window.
        pixels: (length of the window,) pixel of the image that it sees at each place.
        share: (end - start,) weight of its scores.
    """

    def __init__(self, start: int, end: int, offset: int, pixels: Tensor, share: Tensor) -> None:
        self.start, self.end = start, end
        self.offset = offset
        self.pixels = pixels
        self.share = share

    @property
    def kept(self) -> slice:
        """The places of the window whose scores are used."""
        return slice(self.offset, self.offset + self.end - self.start)


def _add(total: Tensor, scores: Tensor, row: _Span, column: _Span) -> None:
    """Add one window's scores (K, h, w), weighted, to those of the image (K, H, W)."""
    share = (row.share[:, None] * column.share).to(total.device)  # 1 where this is the only window
    total[:, row.start : row.end, column.start : column.end] += scores[:, row.kept, column.kept] * share


def _tile(image: Tensor, row: _Span, column: _Span) -> Tensor:
    """The pixels (3, h, w) that one window sees."""
    return image[:, row.pixels.to(image.device)][:, :, column.pixels.to(image.device)]


def _mirrored(first: int, count: int, side: int) -> Tensor:
    """(count,) numbers of pixels from `first` on, mirrored at the first and the last of `side`, any number of times."""
    period = max(2 * (side - 1), 1)
    number = torch.arange(first, first + count).remainder(period)
    return torch.minimum(number, period - number) if side > 1 else torch.zeros(count, dtype=torch.int64)


def _profile(length: int, blending: str) -> Tensor:
    """(length,) float64 weight of each place of a window, above 0."""
    if blending == "uniform":
        return torch.ones(length, dtype=torch.float64)
    places = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    return torch.exp(-0.5 * (places / (length / 8)) ** 2)


def _batches(items: list, size: int) -> Iterator[list]:
    return (items[i : i + size] for i in range(0, len(items), size))
