"""Batches out of worker processes, which may die, fall silent or run out of shared memory: each is one message."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator

import torch
from torch.utils.data import DataLoader

from vertebra.data.images.oddities import OddImages
from vertebra.data.samplers import SampleKey
from vertebra.data.worker import Outcome, SampleReader, start_worker
from vertebra.errors import SetupError
from vertebra.runtime.held_signals import signals_held

__all__ = ["WORKER_TIMEOUT", "outcomes_of"]

WORKER_TIMEOUT = 600.0  # seconds
_SHARED = "/dev/shm"


def outcomes_of(
    reader: SampleReader, plan: Iterable[list[SampleKey]], workers: int, start_method: str | None, timeout: float
) -> Iterator[list[Outcome]]:
    """Runs the plan through a DataLoader; its workers live as long as this iteration.

    Raises:
        SetupError: a worker died, none gave a batch for `timeout` seconds, or shared memory is full.
    """
    loader: DataLoader = DataLoader(
        reader,
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=_in_shared_memory if workers else _as_list,
        worker_init_fn=start_worker,
        prefetch_factor=2 if workers else None,
        multiprocessing_context=start_method if workers else None,
        timeout=timeout if workers else 0,
    )
    odd, others, own = OddImages(), set(multiprocessing.active_children()), set()
    try:
        with signals_held(start_method):
            batches = iter(loader)
            own = set(multiprocessing.active_children()) - others
        for batch in batches:
            if isinstance(batch, str):
                raise SetupError(_full(batch))
            for outcome in batch:
                odd.tell(outcome.odd)
            yield batch
    except RuntimeError as err:
        if not re.search(r"DataLoader (timed out|worker \(pid)", str(err)):
            raise
        at = [reader.dicts[index].get("file_name") for index in reader.current.tolist() if index >= 0]
        where = f"The workers were at: {', '.join(map(str, at)) or 'no image'}"
        told = f"{err} {err.__context__}"  # torch says only in one of them which signal it was
        raise SetupError(f"{_what_happened(told, timeout)}\n  {where}") from err
    finally:
        reader.closing.fill_(True)
        for worker in own:  # those that are in the middle of an image, or stuck there
            if worker.is_alive():
                worker.terminate()


def _as_list(outcomes: list[Outcome]) -> list[Outcome]:
    return outcomes


class _TensorSharer(pickle.Pickler):
    """Moves each tensor that it meets into shared memory; what it writes is not used."""

    def persistent_id(self, obj: object) -> object:
        if not isinstance(obj, torch.Tensor):
            return None
        obj.share_memory_()
        return True


def _in_shared_memory(outcomes: list[Outcome]) -> list[Outcome] | str:
    """In a worker: the batch with its tensors in shared memory, or the reason why that failed.

    Otherwise the queue would do it in a thread, where a failure is printed and the main process waits for ever.
    """
    try:
        _TensorSharer(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(outcomes)
        return outcomes
    except (RuntimeError, OSError) as err:
        if "space" in str(err) or "shared memory" in str(err) or "shm" in str(err):
            return str(err).splitlines()[0]
        raise


def _full(reason: str) -> str:
    try:
        usage = shutil.disk_usage(_SHARED)
        size = f"{_SHARED} has {usage.total / 2**20:.4g} MiB, {usage.free / 2**20:.4g} MiB free"
    except OSError:
        size = reason
    return (
        f"shared memory is full: the data workers hand their batches over in it ({size}).\n"
        "  Enlarge it (docker run --shm-size=2g, or --ipc=host), or lower data.workers or the batch size; "
        "data.workers=0 needs none"
    )


def _what_happened(message: str, timeout: float) -> str:
    if "timed out" in message:
        return (
            f"the data workers gave no batch for {timeout:g} seconds.\n"
            "  Is the storage slow or gone, or a transform stuck? data.workers=0 shows where it is; data.timeout sets "
            "the limit"
        )
    if "Bus error" in message:
        return _full(message.splitlines()[0])
    killed = re.search(r"killed by signal: (\w+)", message)
    if killed and killed[1] == "Killed":
        return (
            "a data worker was killed, probably for want of memory.\n"
            "  Lower data.workers or the batch size; the system's log (dmesg) says whether memory ran out"
        )
    how = f"was ended by the signal {killed[1]}" if killed else "ended unexpectedly"
    return f"a data worker {how}.\n  data.workers=0 shows the error in the main process"
