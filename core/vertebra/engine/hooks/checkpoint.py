"""Checkpoint: saves the training now and then, and the weights at the end."""

from __future__ import annotations

from vertebra.engine.hook import Hook, Training

__all__ = ["Checkpoint"]


class Checkpoint(Hook):
    """A checkpoint every `every` steps and at the end, where final.pth with the weights alone follows.

    Comes after the hooks that write numbers and before the evaluation.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every

    def after_step(self, trainer: Training) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            trainer.save_checkpoint()

    def after_train(self, trainer: Training) -> None:
        trainer.save_checkpoint()
        trainer.save_final()
