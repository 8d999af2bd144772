"""SaveOnInterrupt: Ctrl-C and SIGTERM save the training, wherever they come, and log how to continue."""

from __future__ import annotations

import logging
import time

from vertebra.engine.hook import Hook, Training
from vertebra.runtime import distributed

__all__ = ["SaveOnInterrupt"]

logger = logging.getLogger(__name__)

_SECONDS = 1.0  # between two looks at the signals of all processes


class SaveOnInterrupt(Hook):
    """At the first signal the running step is finished and saved; waiting for data and evaluations are left at once.
    Then KeyboardInterrupt (Ctrl-C, exit code 130) or SystemExit(143) (SIGTERM) is raised. A second signal stops
    immediately, without saving.

    Processes agree on the step to stop at, about once a second and at least every `every` steps. They save before each
    evaluation, so that it can be left without a word from the others.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._next_look = 0
        self._last_look = (0, 0.0)  # step, time

    def before_train(self, trainer: Training) -> None:
        trainer.signals.install()
        self._next_look, self._last_look = trainer.step + 1, (trainer.step, time.monotonic())

    def after_step(self, trainer: Training) -> None:
        if self._signal_anywhere(trainer):
            self.save(trainer)
            raise trainer.signals.error()

    def save(self, trainer: Training) -> None:
        """Saves what a resumed run needs, and logs how to go on."""
        path = trainer.save_checkpoint()
        if path is not None and trainer.folder is not None:
            logger.warning("Stopped after step %d of %d; saved %s.", trainer.step, trainer.max_steps, path)
            logger.warning("To continue: the same command with --output %s --resume", trainer.folder.path)

    def close(self, trainer: Training) -> None:
        trainer.signals.restore()

    def _signal_anywhere(self, trainer: Training) -> bool:
        here = trainer.signals.received is not None
        if distributed.world_size() == 1:
            return here
        if trainer.step < self._next_look:
            return False
        step, since = self._last_look
        now = time.monotonic()
        seconds = (now - since) / max(trainer.step - step, 1)
        anywhere, seconds = distributed.highest([float(here), seconds], trainer.device)
        self._last_look = (trainer.step, now)
        self._next_look = trainer.step + min(max(int(_SECONDS / max(seconds, 1e-6)), 1), self.every)
        return bool(anywhere)
