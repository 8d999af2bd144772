"""Keys to batches: images of like orientation together, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from vertebra.data.samplers import SampleKey
from vertebra.errors import DataError

__all__ = ["BatchPlan", "group_batches", "is_wide"]


class BatchPlan:
    """What a DataLoader takes as batch sampler: lists of keys from batch number `start` on.

    Earlier batches are planned and thrown away, so the rest is exactly what a run that never stopped would see.

    Args:
        keys: starts the stream of keys from its beginning.
        batch_size: images per batch.
        wide: (number of images,) bool; batches do not mix the two sorts. None: batches in the order of the keys.
    """

    def __init__(
        self, keys: Callable[[], Iterator[SampleKey]], batch_size: int, wide: np.ndarray | None, start: int = 0
    ) -> None:
        self.keys = keys
        self.batch_size = batch_size
        self.wide = wide
        self.start = start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return islice(group_batches(self.keys(), self.batch_size, self.wide), self.start, None)


def group_batches(
    keys: Iterator[SampleKey], batch_size: int, wide: np.ndarray | None = None
) -> Iterator[list[SampleKey]]:
    """Batches as they fill up: one open batch for wide images, one for the others, or one for all.

    Source: Detectron2's AspectRatioGroupedDataset, whose batches these are. Keys in batches that never fill are lost.
    """
    sorts = None if wide is None else wide.tolist()
    open_batches: tuple[list[SampleKey], list[SampleKey]] = ([], [])
    for key in keys:
        batch = open_batches[0 if sorts is None else sorts[key.index]]
        batch.append(key)
        if len(batch) == batch_size:
            yield batch.copy()
            batch.clear()


def is_wide(dicts: Sequence[dict]) -> np.ndarray:
    """(number of images,) bool: wider than high."""
    result = np.zeros(len(dicts), dtype=bool)
    for i, item in enumerate(dicts):
        if "width" not in item or "height" not in item:
            raise DataError(
                f"{item.get('file_name', f'image {i}')}: its dict has no width and height, "
                "which grouping by aspect ratio needs; add them or set data.aspect_ratio_grouping: false"
            )
        result[i] = item["width"] > item["height"]
    return result
