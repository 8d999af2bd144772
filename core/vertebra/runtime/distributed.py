"""The processes of one training: torchrun's environment in, a few plain helpers out.

Each helper works in a single process too, where it does nothing, so that no caller asks first.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from vertebra.errors import SetupError, VertebraError
from vertebra.runtime.fellows import NO_STORE, Fellows, end_process

__all__ = [
    "any_process",
    "barrier",
    "broadcast_object",
    "end_process",
    "failed",
    "gather_objects",
    "gather_to_main",
    "has_joined",
    "highest",
    "initialize",
    "is_main_process",
    "mean_over_processes",
    "on_main_process",
    "rank",
    "shut_down",
    "world_size",
    "wrap",
]

Result = TypeVar("Result")

_fellows: Fellows | None = None

_STOPPED = "stopped by SIGTERM"
_TIMEOUT = timedelta(minutes=60)  # one process evaluates or writes while the others wait


def rank() -> int:
    """Number of this process over all machines; 0 where there is only one."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes over all machines."""
    return dist.get_world_size() if _active() else 1


def is_main_process() -> bool:
    """True in the one process that writes files."""
    return rank() == 0


def initialize(device: torch.device) -> None:
    """Joins the process group that torchrun or `launch` announces in the environment; otherwise does nothing.

    Raises:
        SetupError: the environment announces several processes but not where they meet.
    """
    if _active() or int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise SetupError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set.\n"
            "  Start with torchrun, or unset WORLD_SIZE to train in one process"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    global _fellows
    store, number, size = next(dist.rendezvous("env://", timeout=_TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if os.environ.get("GROUP_WORLD_SIZE") == "1" else "0"
    # On one machine torchrun's store outlives a restart, and with it the addresses of processes that are gone.
    watched = store.clone() if hasattr(store, "clone") else store  # a client of its own: the other may be waiting
    _fellows = Fellows(dist.PrefixStore(f"fellows/{attempt}", watched), number, size)
    _fellows.start()
    group = dist.PrefixStore(f"group/{attempt}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=group, rank=number, world_size=size, timeout=_TIMEOUT)
    atexit.register(shut_down)


def has_joined() -> bool:
    """Whether this is one of several processes, from the moment on at which it looks for the others."""
    return _fellows is not None


def shut_down() -> None:
    """Leaves the process group where there is one."""
    if _fellows is not None:
        _fellows.stop()
    if _active():
        with contextlib.suppress(RuntimeError):  # the holder of the store has ended before
            dist.destroy_process_group()


def failed(err: BaseException, message: str | None = None) -> str | None:
    """For a program that is about to end with an error: tells the other processes why.

    Args:
        message: in words for the user; None: the error's own.

    Returns:
        What another process failed of before, where this error is but its consequence; None in all other cases.
    """
    if _fellows is None:
        return None
    if isinstance(err, SystemExit) and err.code == 128 + signal.SIGTERM:  # torchrun ends the others that way
        first = _fellows.failure()
        if first not in (None, NO_STORE) and not first.endswith(_STOPPED):
            return first
        message = message or _STOPPED
    if isinstance(err, RuntimeError):  # of a collective whose partner has gone: it may just be telling why
        first = _fellows.failure(wait=3.0)
        if first is not None:
            return first
        if isinstance(err, dist.DistBackendError) or "peer" in str(err) or "gloo" in str(err).lower():
            return f"another process is gone (killed, or out of memory?): {str(err).strip().splitlines()[0]}"
    _fellows.tell(message or f"{type(err).__name__}: {err}")
    return None


def wrap(model: nn.Module, device: torch.device, *, find_unused: bool = False) -> nn.Module:
    """The model for training: itself, or in DistributedDataParallel, which averages gradients over processes.

    Buffers are not broadcast at every step, as in Detectron2: frozen ones do not change, running
    statistics are each process's own (a norm that shares them, SyncBN, does so itself).

    Args:
        find_unused: look for parameters that a step does not use, instead of waiting for their gradients.
    """
    if world_size() == 1:
        return model
    parallel = nn.parallel.DistributedDataParallel
    known = inspect.signature(parallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch 2.14 renamed it
    # Nor are they at the start: a resumed process has its own again. That parameters agree has been checked.
    options: dict[str, Any] = {sync: False, "init_sync": False, "find_unused_parameters": find_unused}
    return parallel(model, device_ids=[device.index] if device.type == "cuda" else None, **options)


def barrier() -> None:
    """Waits until all processes are here."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Gathers a value from every process on all processes, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_to_main(value: Any) -> list[Any] | None:
    """Everyone's value by rank in the main process, None in the others."""
    values = gather_objects(value)  # NCCL knows no gather to one
    return values if is_main_process() else None


def on_main_process(work: Callable[[], Result]) -> Result:
    """Does `work` in the main process alone and hands its result to all; if it fails, all fail instead of waiting.

    Raises:
        VertebraError: in the other processes, where the main one failed; it raises what `work` raised.
    """
    if world_size() == 1:
        return work()
    outcome: tuple[Any, str | None] = (None, None)
    error: Exception | None = None
    if is_main_process():
        try:
            outcome = (work(), None)
        except Exception as err:
            error, outcome = err, (None, f"{type(err).__name__}: {err}")
    result, failure = broadcast_object(outcome)
    if error is not None:
        raise error
    if failure is not None:
        raise VertebraError(f"the main process failed: {failure}")
    return result


def broadcast_object(value: Any) -> Any:
    """Broadcasts a value from the main process to all processes."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    """Mean of each number over the processes that have it."""
    if world_size() == 1:
        return values
    everyone = gather_objects(values)
    names = dict.fromkeys(name for one in everyone for name in one)
    present = {name: [one[name] for one in everyone if name in one] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in present.items()}


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process."""
    return bool(highest([float(flag)], device)[0])


def highest(values: list[float], device: torch.device) -> list[float]:
    """The highest of each number over all processes, in all of them."""
    if world_size() == 1:
        return values
    numbers = torch.tensor(values, device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return numbers.tolist()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()
