"""Gathering over the processes of torch.distributed; in a single process each helper does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from vertebra.errors import DataError

__all__ = ["gather_to_main", "is_main_process", "on_main_process", "process_rank", "world_size"]

Result = TypeVar("Result")


def world_size() -> int:
    return dist.get_world_size() if _active() else 1


def process_rank() -> int:
    return dist.get_rank() if _active() else 0


def is_main_process() -> bool:
    return process_rank() == 0


def gather_to_main(value: Any) -> list[Any] | None:
    """Everyone's value by rank in the main process, None in the others."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)  # NCCL knows no gather to one
    return values if is_main_process() else None


def on_main_process(work: Callable[[], Result]) -> Result:
    """Do `work` in the main process alone and hand its result to all; if it fails, all fail instead of waiting."""
    if world_size() == 1:
        return work()
    box: list[Any] = [None, None]
    error: Exception | None = None
    if is_main_process():
        try:
            box[0] = work()
        except Exception as err:
            error, box[1] = err, f"{type(err).__name__}: {err}"
    dist.broadcast_object_list(box, src=0)
    if error is not None:
        raise error
    if box[1] is not None:
        raise DataError(f"the evaluation failed in the main process: {box[1]}")
    return box[0]


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()
