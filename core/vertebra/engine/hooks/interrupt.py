"""SaveOnInterrupt: Ctrl-C and SIGTERM finish the step, save, and log how to continue."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from vertebra.engine.hooks.contract import Hook
from vertebra.runtime import distributed

if TYPE_CHECKING:
    from vertebra.engine.trainer import Trainer

__all__ = ["SaveOnInterrupt"]

logger = logging.getLogger(__name__)


class SaveOnInterrupt(Hook):
    """At the first signal the running step is finished and saved, then KeyboardInterrupt (Ctrl-C) or SystemExit(143)
    (SIGTERM) is raised; a second signal stops at once, without saving. A signal that the process ignores, as the shell
    makes a script's `command &` ignore Ctrl-C, stays ignored.

    Processes agree on the step to stop at, every `every` steps. Only the main thread can take signals; elsewhere
    this hook does nothing.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._owner = 0

    def before_train(self, trainer: Trainer) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._owner = os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.SIG_IGN, None):  # None: a handler that Python could not put back
                continue
            self._previous[number] = signal.signal(number, self._take)

    def after_step(self, trainer: Trainer) -> None:
        if distributed.world_size() > 1:
            if trainer.step % self.every or not distributed.any_process(self._signal is not None, trainer.device):
                return
        elif self._signal is None:
            return
        path = trainer.save_checkpoint()
        if path is not None and trainer.folder is not None:
            logger.warning("Stopped after step %d of %d; saved %s.", trainer.step, trainer.max_steps, path)
            logger.warning("To continue: the same command with --output %s --resume", trainer.folder.path)
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def after_train(self, trainer: Trainer) -> None:
        self.close(trainer)  # all is saved: from here on a signal may stop at once

    def close(self, trainer: Trainer) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data worker, forked with this handler: the main process ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number
        logger.warning("%s: stopping after this step. A second signal stops immediately.", signal.Signals(number).name)
