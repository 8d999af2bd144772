"""The other processes of a run: that they are alive, and what one of them failed of.

A collective waits for everyone. When a process fails or is gone, those that wait for it get the backend's own error at
best, and wait for its time limit at worst. So each process tells the others through the store in which they met: a
thread writes signs of life and looks at those of the others, and a failure is written there before the process ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertebra.runtime.folders import drop_empty_folders

__all__ = ["NO_STORE", "Fellows", "end_process"]

_LOOK = 1.0  # seconds between two looks
_GRACE = 5.0  # seconds in which this process may end by itself, after another has failed
_SILENT = 300.0  # seconds without a sign of life; a library that holds Python's lock for long gives none
_FAILED = "vertebra/failed"
NO_STORE = "the process that holds the store (rank 0, or torchrun) is gone"


class Fellows:
    """Watches the other ranks from a thread; ends this process with one message when one of them is lost.

    Args:
        store: in which all processes met, with `set`, `get` and `check`.
        rank, world_size: which process this is, of how many.
        end: what to do with the message; None: print it and end the process with exit code 2.
        silent: seconds without a sign of life after which another process counts as lost.
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
        self._left: set[int] = set()  # ranks that ended in order
        self._seen: dict[int, tuple[bytes, float]] = {}  # rank -> its latest sign of life, and when it was new
        self._thread = threading.Thread(target=self._watch, name="vertebra-fellows", daemon=True)

    def start(self) -> None:
        self.store.set(_key("who", self.rank), f"{_machine()} {os.getpid()}")
        self._thread.start()

    def stop(self) -> None:
        """This process leaves in order; what becomes of the others is no longer its concern."""
        self._stopped.set()
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            return
        self._thread.join(timeout=2 * _LOOK)
        with contextlib.suppress(Exception):
            self.store.set(_key("left", self.rank), "1")
            if self.rank == 0:  # the store may end with this process: time for the others to see that
                time.sleep(2 * _LOOK)

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
                return NO_STORE
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)

    def _watch(self) -> None:
        number = 0
        while not self._stopped.wait(_LOOK):
            number += 1
            try:
                self.store.set(_key("alive", self.rank), str(number))
                lost = self.failure() or self._lost_one()
            except Exception:
                lost = NO_STORE
            if lost == NO_STORE and 0 in self._left:
                return
            if lost is not None:
                if not self._stopped.wait(_GRACE):
                    self._end(lost)
                return

    def _lost_one(self) -> str | None:
        """Which other process ended without a word, or gives no sign of life any more."""
        for rank in range(self.world_size):
            if rank == self.rank or rank in self._left:
                continue
            if self.store.check([_key("left", rank)]):
                self._left.add(rank)
            elif self._is_gone(rank):
                return f"rank {rank} is gone: its process ended without a word (killed, or out of memory?)"
            elif self._is_silent(rank):
                return (
                    f"rank {rank} has given no sign of life for {self.silent:g} seconds: is its machine gone, or its "
                    "process stopped?"
                )
        return None

    def _is_gone(self, rank: int) -> bool:
        """Whether a process of this machine does not exist any more; of other machines nothing is known."""
        if not self.store.check([_key("who", rank)]):
            return False
        machine, _, process = self.store.get(_key("who", rank)).decode().rpartition(" ")
        return bool(machine) and machine == _machine() and not Path(f"/proc/{process}").exists()

    def _is_silent(self, rank: int) -> bool:
        key, now = _key("alive", rank), time.monotonic()
        if not self.store.check([key]):
            return False
        sign = self.store.get(key)
        if self._seen.get(rank, (b"", now))[0] != sign:
            self._seen[rank] = (sign, now)
        return now - self._seen[rank][1] > self.silent


def _key(what: str, rank: int) -> str:
    return f"vertebra/{what}/{rank}"


def _machine() -> str:
    """The machine and its space of process numbers (containers have their own); empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def end_process(code: int) -> None:
    """Ends the process whatever it is waiting for, and its data workers before it."""
    for child in multiprocessing.active_children():
        child.kill()
    drop_empty_folders()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say_and_end(message: str) -> None:
    print(f"vertebra: {message}", file=sys.stderr)
    end_process(2)
