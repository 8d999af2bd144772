"""Ctrl-C and SIGTERM during a training: when they stop it at once, and when after what is being done."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Signals", "StopNow"]

logger = logging.getLogger(__name__)


class StopNow(BaseException):
    """Raised by the first signal inside `Signals.at_once`, where nothing that counts is half done."""


class Signals:
    """Remembers the first signal, so that a step or a checkpoint is finished; a second one stops at once.

    A signal that the process ignores, as the shell makes a script's `command &` ignore Ctrl-C, stays ignored. Only the
    main thread can take signals; elsewhere nothing is installed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._owner = 0
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Takes SIGINT and SIGTERM from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._owner = os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: a handler that Python could not put back
                self._previous[number] = signal.signal(number, self._take)

    def restore(self) -> None:
        """Gives both back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What runs inside may be left at any line: a signal raises StopNow, also one that came before."""
        if self.received is not None:
            raise StopNow
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def error(self) -> BaseException:
        """What ends the process with the exit code of the signal: 130 or 143."""
        return SystemExit(128 + signal.SIGTERM) if self.received == signal.SIGTERM else KeyboardInterrupt()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data worker that was forked with this handler and has none of its own yet
            return
        if self.received is not None:
            raise self.error()
        self.received = number
        name = signal.Signals(number).name
        if self._at_once:
            self._at_once = False
            logger.warning("%s: stopping.", name)
            raise StopNow
        logger.warning("%s: stopping after this step. A second signal stops immediately.", name)
