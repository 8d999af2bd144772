"""Signals are held back while child processes start: a child cannot yet heed them, and its parent cannot yet end it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType

__all__ = ["release_signals", "signals_held"]

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals_held(start_method: str | None = None) -> Iterator[None]:
    """Ctrl-C and SIGTERM that come meanwhile act at the end of the block, here; a child started in it gets none before
    it calls `release_signals`.

    The mask of the thread is for the children, which inherit it. It does not hold back what another thread of this
    process takes, whose handler Python then runs here: hence the handlers. Only the main thread can set those;
    elsewhere nothing is held.

    Args:
        start_method: of the children; None: the platform's own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # None: a handler that Python could not put back
    handlers = {one: signal.getsignal(one) for one in _HELD if signal.getsignal(one) not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, keep)
    masked = _mask(start_method or multiprocessing.get_start_method())
    try:
        yield
    finally:
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for held, handler in handlers.items():
            signal.signal(held, handler)
        for arrived in came:
            signal.raise_signal(arrived)


def release_signals() -> None:
    """In a child, once it has its own handlers: takes signals from now on, also those that came before."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def _mask(start_method: str) -> set[int | signal.Signals] | None:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return None
    if start_method != "fork":  # the first such child starts the tracker, and that lifts the mask
        resource_tracker.ensure_running()
    return signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
