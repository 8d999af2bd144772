"""What runs in a loader's worker process: one key to one sample. A bad image becomes a message, never a crash."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import synchronize
from multiprocessing.util import Finalize
from types import FrameType

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from vertebra.data.images.oddities import collected_oddities
from vertebra.data.images.read import image_formats
from vertebra.data.mapper import Mapper
from vertebra.data.samplers import SampleKey
from vertebra.errors import DataError, VertebraError
from vertebra.runtime.held_signals import release_signals
from vertebra.traces import CarriedError, frames_of

__all__ = ["Outcome", "SampleReader", "start_worker"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Outcome:
    """What became of one key: a sample, or None; and what went wrong on the way."""

    sample: dict | None = None
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(path of the image, message) of each image that could not be used."""
    odd: list[tuple[str, str]] = field(default_factory=list)
    """(kind, path) of images that are unusual, see `image_oddities`."""
    error: VertebraError | CarriedError | None = None
    """A fault that no other image would fix, to be raised by the main process."""


class SampleReader(Dataset):
    """The indexable thing that a DataLoader's workers read from: `reader[key] -> Outcome`.

    Args:
        dicts: all standard dicts, packed.
        mapper: dict, epoch and index to sample.
        replacements: number of other images that are tried in the place of a bad one.
        wide: (number of images,) bool; a replacement is of the same sort, as its batch is.
        workers: number of worker processes.
    """

    def __init__(
        self,
        dicts: Sequence[dict],
        mapper: Mapper,
        replacements: int = 0,
        wide: np.ndarray | None = None,
        workers: int = 0,
    ) -> None:
        self.dicts = dicts
        self.mapper = mapper
        self.replacements = replacements
        self.wide = wide
        self.current = torch.full((max(workers, 1),), -1).share_memory_()
        """(workers,) index of the image each worker is at, -1 for none; read after one has died."""
        image_formats()  # loads Pillow's readers before workers are forked
        self.closing = torch.zeros(1, dtype=torch.bool).share_memory_()
        """Set by the main process when its workers shall obey SIGTERM."""

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, key: SampleKey) -> Outcome:
        outcome = Outcome()
        info = get_worker_info()
        slot = info.id if info else 0
        index = key.index
        for attempt in range(self.replacements + 1):
            self.current[slot] = index
            item = self.dicts[index]  # with other random numbers each time, which may have drawn a bad image to join
            path = item.get("file_name", f"image {index} of the dataset")
            try:
                with collected_oddities() as outcome.odd:
                    outcome.sample = self.mapper(item, key.epoch, index, key.repeat + (attempt << 32))
                break
            except DataError as err:
                outcome.bad.append((err.file_name or path, str(err)))
            except VertebraError as err:
                outcome.error = err
                break
            except (Exception, SystemExit) as err:
                outcome.error = CarriedError(
                    f"{path}: a transform or the mapper failed on this image: {type(err).__name__}: {err}",
                    frames_of(err),
                    traceback.format_exc(),
                )
                break
            index = self._replacement(key, attempt)
        self.current[slot] = -1
        return outcome

    def _replacement(self, key: SampleKey, attempt: int) -> int:
        """Another image, drawn from what the key says alone: a resumed run draws the same."""
        pool = len(self.dicts) if self.wide is None else np.flatnonzero(self.wide == self.wide[key.index])
        rng = np.random.default_rng([self.mapper.seed, *key, attempt])
        return int(rng.choice(pool))


def start_worker(worker_id: int) -> None:
    """Set up a worker process: one thread, and signals are left to the main process.

    Ctrl-C, timeout, SLURM and systemd signal the whole process group: a worker that obeyed would take away the batch
    that the main process needs to finish its step and save. It obeys once the main process is closing its workers, and
    ends with the main process even while it is stuck in an image.

    A spawned worker ends without taking its interpreter down: torch 2.14 aborts there ("terminate called without an
    active exception") about every other time. Forked workers have always ended so.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = get_worker_info()
    assert info is not None and isinstance(info.dataset, SampleReader)  # this is a worker
    reader = info.dataset
    signal.signal(signal.SIGTERM, lambda number, frame: _leave(frame) if reader.closing else None)
    release_signals()
    _end_with_parent()
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)  # the last finalizer to run


def _leave(frame: FrameType | None) -> None:
    """Ends this worker, unless it holds a lock of multiprocessing: the main process takes that of the event by which it
    ends its workers, and would wait for ever. Then that event ends this worker a moment later."""
    while frame is not None:
        if frame.f_code.co_filename == synchronize.__file__:
            return
        frame = frame.f_back
    os._exit(0)


def _end_with_parent() -> None:
    """On Linux the kernel kills this process when its parent ends, whatever either of them is doing."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
