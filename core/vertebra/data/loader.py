"""Batches for training and evaluation, made in worker processes.

The main process plans which images come when; a worker is handed (epoch, index) keys and depends on nothing else. So
batches are the same for any number of workers, and training can go on at any batch without reading what came before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from vertebra.data.batching import BatchPlan, is_wide
from vertebra.data.formats import Dataset
from vertebra.data.mapper import Mapper
from vertebra.data.packed import PackedDicts
from vertebra.data.samplers import (
    SampleKey,
    Sampler,
    TrainingSampler,
    epoch_length_of,
    inference_indices,
    sample_keys,
)
from vertebra.data.worker import Outcome, SampleReader
from vertebra.data.worker_batches import WORKER_TIMEOUT, outcomes_of
from vertebra.errors import DataError

__all__ = ["EvalLoader", "TrainLoader"]

logger = logging.getLogger(__name__)

_EXTRA_REPLACEMENTS = 20  # tries beyond the limit, for draws that hit a bad image which is known already


class TrainLoader:
    """Endless batches of training samples for one of `world_size` processes.

    Args:
        dataset: the images to train on, as a Dataset or a list of standard dicts.
        mapper: makes the samples, with training=True.
        batch_size: images per step over all processes; a multiple of `world_size`.
        sampler: order of the images; None: TrainingSampler().
        seed: of the order. The mapper holds the seed of the augmentations.
        workers: number of processes that make samples; 0 makes them here.
        aspect_ratio_grouping: batches hold either images that are wider than high or others.
        rank, world_size: which process this is, of how many.
        max_bad_images: maximum number of different unusable images that are skipped and logged, in this process; the
            next one is an error. In the place of a skipped image comes another one, drawn by the key alone.
        start_method: `fork`, `spawn` or `forkserver`; None: the platform's own.
        timeout: seconds to wait for a batch of the workers before that is an error.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[dict],
        mapper: Mapper,
        batch_size: int,
        sampler: Sampler | None = None,
        seed: int = 0,
        workers: int = 0,
        aspect_ratio_grouping: bool = True,
        rank: int = 0,
        world_size: int = 1,
        max_bad_images: int = 0,
        start_method: str | None = None,
        timeout: float = WORKER_TIMEOUT,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is not divisible by {world_size} processes")
        self.dataset = dataset
        self.dicts = _packed(dataset)
        if not len(self.dicts):
            raise DataError("there are no images to train on: the dataset is empty")
        self.mapper = mapper
        self.batch_size = batch_size
        self.sampler = sampler or TrainingSampler()
        self.seed = seed
        self.workers = workers
        self.rank = rank
        self.world_size = world_size
        self.max_bad_images = max_bad_images
        self.start_method = start_method
        self.timeout = timeout
        self.wide = is_wide(self.dicts) if aspect_ratio_grouping else None
        self.steps_per_epoch = epoch_length_of(self.sampler, self.dicts) / batch_size
        """Steps until every image has come once on average; rarely a whole number."""
        self._bad: set[str] = set()

    def batches(self, start: int = 0) -> Iterator[list[dict]]:
        """Batches from number `start` on, exactly as an iteration from 0 would give them there; never ends.

        Raises:
            DataError: more than `max_bad_images` images could not be used; names the last.
        """
        plan = BatchPlan(self._keys, self.batch_size // self.world_size, self.wide, start)
        replacements = self.max_bad_images + _EXTRA_REPLACEMENTS if self.max_bad_images else 0
        reader = SampleReader(self.dicts, self.mapper, replacements, self.wide, self.workers)
        for outcomes in outcomes_of(reader, plan, self.workers, self.start_method, self.timeout):
            yield [self._accept(outcome) for outcome in outcomes]

    def _keys(self) -> Iterator[SampleKey]:
        return sample_keys(self.sampler, self.dicts, self.seed, self.rank, self.world_size)

    def _accept(self, outcome: Outcome) -> dict:
        for path, message in outcome.bad:
            if path in self._bad:
                continue
            self._bad.add(path)
            if len(self._bad) > self.max_bad_images:
                raise DataError(
                    f"{message}\n  {len(self._bad)} image(s) could not be used; "
                    f"data.max_bad_images allows {self.max_bad_images}"
                )
            logger.warning("image %d of at most %d skipped: %s", len(self._bad), self.max_bad_images, message)
        if outcome.error is not None:
            raise outcome.error
        if outcome.sample is None:
            raise DataError(f"{outcome.bad[-1][1]}\n  {len(outcome.bad)} attempts in a row found no usable image")
        return outcome.sample


class EvalLoader:
    """Every image of one process's share once, in the dataset's order, in lists of `batch_size` (the last may be
    shorter). An image that cannot be used is an error: results over a part of the set would mislead.

    Args:
        dataset: the images to evaluate on.
        mapper: makes the inputs, with training=False.
        batch_size: images per list, in this process.
        workers: number of processes that make inputs; 0 makes them here.
        rank, world_size: which process this is, of how many.
        start_method: `fork`, `spawn` or `forkserver`; None: the platform's own.
        timeout: seconds to wait for a batch of the workers before that is an error.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[dict],
        mapper: Mapper,
        batch_size: int = 1,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_method: str | None = None,
        timeout: float = WORKER_TIMEOUT,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.dataset = dataset
        self.dicts = _packed(dataset)
        self.mapper = mapper
        self.batch_size = batch_size
        self.workers = workers
        self.start_method = start_method
        self.timeout = timeout
        self.indices = inference_indices(len(self.dicts), rank, world_size)

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[dict]]:
        keys = [SampleKey(0, index) for index in self.indices]
        plan = [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]
        workers = min(self.workers, len(plan))
        reader = SampleReader(self.dicts, self.mapper, workers=workers)
        for outcomes in outcomes_of(reader, plan, workers, self.start_method, self.timeout):
            for outcome in outcomes:
                if outcome.bad:
                    raise DataError(outcome.bad[0][1])
                if outcome.error is not None:
                    raise outcome.error
            yield [outcome.sample for outcome in outcomes if outcome.sample is not None]


def _packed(dataset: Dataset | Sequence[dict]) -> PackedDicts:
    if isinstance(dataset, Dataset):
        return dataset.dicts
    return dataset if isinstance(dataset, PackedDicts) else PackedDicts(dataset)
