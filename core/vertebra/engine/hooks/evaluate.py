"""Evaluate: measures the model during and after the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from vertebra.engine.hook import Hook, Training
from vertebra.engine.hooks.metrics_file import read_metrics
from vertebra.engine.rng import preserved_rng
from vertebra.errors import DataError, PluginError
from vertebra.runtime import distributed

__all__ = ["Evaluate"]


class Evaluate(Hook):
    """Evaluates `trainer.evaluated_model` every `every` steps (None: never in between) and at the end.

    A signal ends an evaluation at once. Comes after Checkpoint: a checkpoint therefore may stand before its step's
    evaluation, and a run resumed from it makes up for that evaluation, unless metrics.jsonl has its numbers already.
    Results of the latest lie in the run's folder `evaluation`. All processes take part. The training's random
    generators stay as they are.
    """

    def __init__(
        self, evaluate: Callable[[nn.Module, Path | None, bool], dict[str, float | None]], every: int | None
    ) -> None:
        self.evaluate = evaluate
        self.every = every
        self.done = -1  # step of the latest evaluation
        self.done_as_last = -1  # step of one with all that belongs to the end, such as the report

    def before_train(self, trainer: Training) -> None:
        if trainer.step == 0 or self.done >= trainer.step:
            return
        numbers = _recorded(trainer) if trainer.is_main_process else None
        numbers = distributed.broadcast_object(numbers)
        if numbers is not None:
            self.done = trainer.step
            self.done_as_last = trainer.step if trainer.step == trainer.max_steps else -1
            trainer.write({"step": trainer.step, **numbers})
        elif self._is_due(trainer):
            self._run(trainer, last=trainer.step == trainer.max_steps)

    def after_step(self, trainer: Training) -> None:
        if self._is_due(trainer):
            self._run(trainer, last=trainer.step == trainer.max_steps)

    def after_train(self, trainer: Training) -> None:
        if self.done_as_last != trainer.step:
            self._run(trainer, last=True)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = int(state["done"])

    def _is_due(self, trainer: Training) -> bool:
        return self.every is not None and trainer.step % self.every == 0

    def _run(self, trainer: Training, last: bool) -> None:
        model = trainer.evaluated_model
        was_training = model.training
        if distributed.world_size() > 1:
            trainer.save_checkpoint()  # so that a signal may end the evaluation in any process
        try:
            with trainer.interruptible(), preserved_rng():
                numbers = self.evaluate(model, trainer.folder.evaluation if trainer.folder else None, last)
        except (DataError, PluginError) as err:
            if trainer.folder is None:
                raise
            kind, what = (DataError, "data") if isinstance(err, DataError) else (PluginError, "plugin")
            raise kind(
                f"the evaluation at step {trainer.step} failed: {err}\n"
                f"  The training is not lost: its checkpoints are in {trainer.folder.path}. Fix the {what}, then the "
                "same command with --resume goes on"
            ) from err
        model.train(was_training)
        numbers = distributed.broadcast_object(numbers)
        self.done = trainer.step
        self.done_as_last = trainer.step if last else -1
        trainer.write({"step": trainer.step, **numbers})


def _recorded(trainer: Training) -> dict[str, Any] | None:
    """What metrics.jsonl says of an evaluation at this step; None: nothing."""
    if trainer.folder is None:
        return None
    for record in read_metrics(trainer.folder.metrics):
        if record["step"] == trainer.step and "loss" not in record:
            return {name: value for name, value in record.items() if name != "step"}
    return None
