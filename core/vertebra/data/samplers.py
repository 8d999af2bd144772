"""The order in which training images come, and which of them belong to which process.

A sampler gives one array of indices per epoch, the same in every process; the loader deals them out. The streams equal
those of Detectron2's TrainingSampler and RepeatFactorTrainingSampler for the same seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from vertebra.config.component import described, where_written
from vertebra.errors import PluginError

__all__ = [
    "RepeatFactorSampler",
    "SampleKey",
    "Sampler",
    "TrainingSampler",
    "epoch_length_of",
    "inference_indices",
    "repeat_factors",
    "sample_keys",
]

_LOOP = "Yield the indices of a whole epoch at once, without end: while True: yield numpy.arange(len(dicts))"


class SampleKey(NamedTuple):
    """What one training sample depends on, besides the run's seed."""

    epoch: int
    """Pass over the data, from 0."""
    index: int  # type: ignore[assignment]  # hides the method of tuples that finds a value, which nobody needs here
    """Place in the dataset."""
    repeat: int = 0
    """Number of times that the index was drawn before in this epoch."""


class Sampler:
    """The contract: which images make up each epoch, and in which order."""

    component_kind: ClassVar[str] = "sampler"

    def epochs(self, dicts: Sequence[dict], seed: int) -> Iterator[np.ndarray]:
        """Without end, one array (or list) of integer indices into `dicts` per epoch, at least one index. It depends on
        nothing but the arguments."""
        raise NotImplementedError

    def epoch_length(self, dicts: Sequence[dict]) -> float:
        """Mean number of indices in an epoch."""
        return len(dicts)


class TrainingSampler(Sampler):
    """Every image once per epoch.

    Args:
        shuffle: in a new order each epoch; otherwise in the dataset's own.
    """

    def __init__(self, shuffle: bool = True) -> None:
        self.shuffle = shuffle

    def epochs(self, dicts: Sequence[dict], seed: int) -> Iterator[np.ndarray]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randperm(len(dicts), generator=generator).numpy() if self.shuffle else np.arange(len(dicts))


class RepeatFactorSampler(Sampler):
    """Images with rare classes come several times per epoch.

    Source: Gupta et al., "LVIS", arXiv:1908.03195, section 5.1.

    Args:
        repeat_threshold: classes in a smaller part of the images than this are repeated.
        sqrt: by the square root of threshold / frequency, as in the paper; otherwise by the quotient itself.
        shuffle: in a new order each epoch.
    """

    def __init__(self, repeat_threshold: float, sqrt: bool = True, shuffle: bool = True) -> None:
        if not 0 < repeat_threshold <= 1:
            raise ValueError(
                f"RepeatFactorSampler: repeat_threshold is {repeat_threshold}, expected a part above 0 up to 1"
            )
        self.repeat_threshold = repeat_threshold
        self.sqrt = sqrt
        self.shuffle = shuffle

    def epochs(self, dicts: Sequence[dict], seed: int) -> Iterator[np.ndarray]:
        factors = repeat_factors(dicts, self.repeat_threshold, self.sqrt)
        whole = torch.trunc(factors)
        rest = factors - whole
        generator = torch.Generator().manual_seed(seed)
        while True:
            # the rest is the chance of one repeat more, drawn anew each epoch
            times = whole + (torch.rand(len(rest), generator=generator) < rest).float()
            indices = torch.repeat_interleave(torch.arange(len(dicts)), times.long())
            if self.shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield indices.numpy()

    def epoch_length(self, dicts: Sequence[dict]) -> float:
        return float(repeat_factors(dicts, self.repeat_threshold, self.sqrt).sum())


def repeat_factors(dicts: Sequence[dict], threshold: float, sqrt: bool = True) -> torch.Tensor:
    """(number of images,) float32: max over an image's classes c of max(1, sqrt(threshold / f(c))), 1 without any.

    f(c) is the part of the images that show c at least once.
    """
    present = [sorted({item["category_id"] for item in entry.get("annotations", ())}) for entry in dicts]
    images_with = Counter(category for categories in present for category in categories)
    factor = {}
    for category, images in images_with.items():
        quotient = threshold * len(present) / images
        factor[category] = max(1.0, math.sqrt(quotient) if sqrt else quotient)
    return torch.tensor([max((factor[c] for c in categories), default=1.0) for categories in present])


def sample_keys(
    sampler: Sampler, dicts: Sequence[dict], seed: int, rank: int = 0, world_size: int = 1
) -> Iterator[SampleKey]:
    """The endless stream of one process: every `world_size`-th key of the common stream, from the `rank`-th on."""
    position = 0
    for epoch, indices in enumerate(_epochs(sampler, dicts, seed)):
        repeats = _repeats(indices)
        for place in range((rank - position) % world_size, len(indices), world_size):
            yield SampleKey(epoch, int(indices[place]), int(repeats[place]))
        position += len(indices)


def epoch_length_of(sampler: Sampler, dicts: Sequence[dict]) -> float:
    """What its `epoch_length` returns, checked.

    Raises:
        PluginError: it is not a number above 0.
    """
    found: Any = sampler.epoch_length(dicts)
    if not isinstance(found, Real) or not 0 < float(found) < math.inf:
        what = str(found) if isinstance(found, Real) else described(found)
        raise PluginError(f"{_called(sampler)}: epoch_length must return the mean number of indices, got {what}")
    return float(found)


def _epochs(sampler: Sampler, dicts: Sequence[dict], seed: int) -> Iterator[np.ndarray]:
    """What its `epochs` yields, checked: int64 arrays, without end.

    Raises:
        PluginError: it is something else.
    """
    owner, number = _called(sampler), 0
    found: Any = sampler.epochs(dicts, seed)
    if not isinstance(found, Iterable):
        raise PluginError(
            f"{owner}: epochs must yield one array of indices per epoch, got {described(found)}.\n  {_LOOP}"
        )
    for number, indices in enumerate(found, 1):
        yield _checked(indices, len(dicts), f"{owner}: epoch {number}")
    raise PluginError(f"{owner}: epochs ended after {number} of them, but a training may need any number.\n  {_LOOP}")


def _checked(indices: Any, size: int, what: str) -> np.ndarray:
    try:
        found = np.asarray(indices)
    except (TypeError, ValueError, RuntimeError):  # lists of several lengths; a tensor on a GPU
        found = np.empty((), dtype=object)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        kind = indices if found.dtype == object or np.isscalar(indices) else found
        raise PluginError(f"{what} is {described(kind)}, expected a one-dimensional array of integers.\n  {_LOOP}")
    if not found.size:
        raise PluginError(
            f"{what} has no indices, so that no batch would ever be full.\n  Yield at least one per epoch"
        )
    lowest, highest = int(found.min()), int(found.max())
    if lowest < 0 or highest >= size:
        wrong = lowest if lowest < 0 else highest
        raise PluginError(f"{what} has the index {wrong}, expected 0 to {size - 1}: the dataset has {size} images")
    return found.astype(np.int64, copy=False)


def _called(sampler: Sampler) -> str:
    return where_written(sampler, f"sampler {type(sampler).__name__}")


def inference_indices(size: int, rank: int = 0, world_size: int = 1) -> range:
    """The block of 0..size-1 that one process evaluates; blocks differ in length by at most one, longer ones first."""
    short, longer = divmod(size, world_size)
    begin = rank * short + min(rank, longer)
    return range(begin, begin + short + (rank < longer))


def _repeats(indices: np.ndarray) -> np.ndarray:
    """Number of times that each entry has occurred in the array before."""
    result = np.zeros(len(indices), dtype=np.int64)
    if len(np.unique(indices)) < len(indices):
        seen: Counter[int] = Counter()
        for place, index in enumerate(indices.tolist()):
            result[place] = seen[index]
            seen[index] += 1
    return result
