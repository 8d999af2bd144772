"""launch: several processes on this machine without torchrun, as `tools/train_net.py --num-gpus N` wants them."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

from vertebra.errors import VertebraError
from vertebra.runtime import distributed

__all__ = ["launch"]


def launch(function: Callable[..., Any], num_processes: int, args: tuple = ()) -> None:
    """Runs `function(*args)` in `num_processes` new processes that find each other as under torchrun.

    Each sees RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; the Trainer joins them (NCCL on
    GPUs, gloo on CPUs). With one process the function runs here.
    Raises:
        VertebraError: of the same class and with the same words as the first one raised in a process.
        torch.multiprocessing.ProcessRaisedException: any other error, with its traceback.
    """
    if num_processes <= 1:
        function(*args)
        return
    context = mp.get_context("spawn")
    errors = context.SimpleQueue()
    port = _free_port()
    try:
        mp.start_processes(
            _run, (function, args, num_processes, port, errors), nprocs=num_processes, start_method="spawn"
        )
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as err:
        if errors.empty():
            raise
        raise errors.get() from err


def _run(
    local_rank: int, function: Callable[..., Any], args: tuple, num_processes: int, port: int, errors: Any
) -> None:
    os.environ.update(
        RANK=str(local_rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE=str(num_processes),
        LOCAL_WORLD_SIZE=str(num_processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        function(*args)
    except BaseException as err:
        distributed.failed(err)
        if isinstance(err, VertebraError):
            errors.put(err)
        raise
    # Without taking down the interpreter, in which torch 2.14 aborts about once in ten times.
    atexit._run_exitfuncs()  # leaves the group, removes temporary folders
    distributed.end_process(0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
