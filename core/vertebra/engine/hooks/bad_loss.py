"""StopOnBadLoss: ends a run whose losses or weights are no longer numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vertebra.engine.hooks.contract import Hook
from vertebra.errors import TrainingDiverged
from vertebra.runtime import distributed

if TYPE_CHECKING:
    from vertebra.engine.trainer import Trainer

__all__ = ["StopOnBadLoss"]


class StopOnBadLoss(Hook):
    """On a CPU in one process, ends the run before a NaN or infinite loss reaches the weights.

    On a GPU, or in several processes, looking at each loss would make each step wait: a flag on the device remembers
    bad losses and is read every `every` steps and before a checkpoint. Bad weights are never saved.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._bad: Tensor | None = None  # bool scalar on the device: some loss since the last look was bad

    def after_backward(self, trainer: Trainer) -> None:
        if trainer.device.type == "cpu" and distributed.world_size() == 1:
            names = [name for name, loss in trainer.losses.items() if not torch.isfinite(loss)]
            if names:
                raise TrainingDiverged(_message(f"step {trainer.step + 1}: not finite: {', '.join(names)}"))
            return
        bad = torch.stack([~torch.isfinite(loss.detach()).all() for loss in trainer.losses.values()]).any()
        self._bad = bad if self._bad is None else self._bad | bad
        if (trainer.step + 1) % self.every == 0:
            self._look(trainer)

    def before_checkpoint(self, trainer: Trainer) -> None:
        self._look(trainer)
        tensors = [p.detach() for p in trainer.model.parameters() if p.is_floating_point()]
        healthy = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
        if distributed.any_process(not bool(healthy), trainer.device):
            raise TrainingDiverged(_message(f"step {trainer.step}: some weights are not finite"))

    def _look(self, trainer: Trainer) -> None:
        if self._bad is None:
            return
        if distributed.any_process(bool(self._bad), trainer.device):
            raise TrainingDiverged(
                _message(f"a loss was not finite in one of the {self.every} steps up to {trainer.step + 1}")
            )
        self._bad = None


def _message(what: str) -> str:
    return (
        f"{what}. Nothing of it was saved.\n"
        "  Often the learning rate is too high (train.optimizer.lr), the warm-up too short, or gradients explode\n"
        "  (train.clip_gradients=1.0 bounds them). train.amp=off shows whether reduced precision is the reason"
    )
