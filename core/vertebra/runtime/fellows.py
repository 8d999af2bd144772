"""The other processes of a run: that they are alive, and what one of them failed of.

A collective waits for everyone. When a process fails or is gone, those that wait for it get the backend's own error at
best, and wait for its time limit at worst. So each process tells the others through the store in which they met: a
thread writes signs of life and looks at those of the others, and a failure is written there before the process ends.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Fellows", "end_process"]

_LOOK = 1.0  # seconds between two looks
_GRACE = 5.0  # seconds in which this process may end by itself, after another has failed
_SILENT = 300.0  # seconds without a sign of life; a library that holds Python's lock for long gives none
_FAILED = "vertebra/failed"


class Fellows:
    """Watches the other ranks from a thread; ends this process with one message when one of them is lost.

    Args:
        store: in which all processes met, with `set`, `get` and `check`.
        rank, world_size: which process this is, of how many.
        end: what to do with the message; None: print it and end the process with exit code 2.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        end: Callable[[str], None] | None = None,
        *,
        silent: float = _SILENT,
    ) -> None:
        self.store = store
        self.rank = rank
        self.world_size = world_size
        self.silent = silent
        self._end = end or _say_and_end
        self._stopped = threading.Event()
        self._seen: dict[int, tuple[bytes, float]] = {}  # rank -> its latest sign of life, and when it was new
        self._thread = threading.Thread(target=self._watch, name="vertebra-fellows", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """This process is about to leave in order; what becomes of the others is no longer its concern."""
        self._stopped.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=2 * _LOOK)

    def tell(self, message: str) -> None:
        """Tells the others why this process ends. The first failure stays: those that follow are its consequences."""
        try:
            if not self.store.check([_FAILED]):
                self.store.set(_FAILED, f"rank {self.rank} failed: {message}")
        except Exception:  # the store is gone, so everyone knows that something happened
            return

    def failure(self, wait: float = 0.0) -> str | None:
        """What the first process that failed told, if it was another one; waits for it for up to `wait` seconds."""
        end = time.monotonic() + wait
        while True:
            try:
                if self.store.check([_FAILED]):
                    told = self.store.get(_FAILED).decode("utf-8", "replace")
                    return None if told.startswith(f"rank {self.rank} ") else told
            except Exception:
                return "the process that holds the store (rank 0, or torchrun) is gone"
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)

    def _watch(self) -> None:
        number = 0
        while not self._stopped.wait(_LOOK):
            number += 1
            try:
                self.store.set(f"vertebra/alive/{self.rank}", str(number))
                lost = self.failure() or self._silent_one()
            except Exception:
                lost = "the process that holds the store (rank 0, or torchrun) is gone"
            if lost is not None:
                if not self._stopped.wait(_GRACE):
                    self._end(lost)
                return

    def _silent_one(self) -> str | None:
        now = time.monotonic()
        for rank in range(self.world_size):
            key = f"vertebra/alive/{rank}"
            if rank == self.rank or not self.store.check([key]):
                continue
            sign = self.store.get(key)
            if self._seen.get(rank, (b"", now))[0] != sign:
                self._seen[rank] = (sign, now)
            elif now - self._seen[rank][1] > self.silent:
                return (
                    f"rank {rank} has given no sign of life for {self.silent:g} seconds: is its machine gone, or its "
                    "process stopped?"
                )
        return None


def end_process(code: int) -> None:
    """Ends the process whatever it is waiting for, and its data workers before it."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say_and_end(message: str) -> None:
    print(f"vertebra: {message}", file=sys.stderr)
    end_process(2)
