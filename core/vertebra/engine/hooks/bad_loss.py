"""StopOnBadLoss and `check_finite`: end a run whose losses, weights or statistics are no longer numbers."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from vertebra.engine.hook import Hook, Training
from vertebra.errors import TrainingDiverged
from vertebra.runtime import distributed
from vertebra_eval.nearest import listed

__all__ = ["StopOnBadLoss", "check_finite", "not_finite"]


class StopOnBadLoss(Hook):
    """On a CPU in one process, ends the run before a NaN or infinite loss reaches the weights.

    On a GPU, or in several processes, looking at each loss would make each step wait: a flag on the device remembers
    bad losses and is read every `every` steps and before a checkpoint.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self._bad: Tensor | None = None  # bool scalar on the device: some loss since the last look was bad

    def after_backward(self, trainer: Training) -> None:
        if trainer.device.type == "cpu" and distributed.world_size() == 1:
            names = [name for name, loss in trainer.losses.items() if not torch.isfinite(loss)]
            if names:
                raise TrainingDiverged(_message(f"step {trainer.step + 1}: not finite: {', '.join(names)}"))
            return
        bad = torch.stack([~torch.isfinite(loss.detach()).all() for loss in trainer.losses.values()]).any()
        self._bad = bad if self._bad is None else self._bad | bad
        if (trainer.step + 1) % self.every == 0:
            self._look(trainer)

    def before_checkpoint(self, trainer: Training) -> None:
        self._look(trainer)

    def _look(self, trainer: Training) -> None:
        if self._bad is None:
            return
        if distributed.any_process(bool(self._bad), trainer.device):
            raise TrainingDiverged(
                _message(f"a loss was not finite in one of the {self.every} steps up to {trainer.step + 1}")
            )
        self._bad = None


def not_finite(*models: nn.Module) -> list[str]:
    """Names of the parameters and buffers, such as running statistics, that hold NaN or infinity."""
    named = [item for model in dict.fromkeys(models) for item in model.state_dict().items()]
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not named:
        return []
    finite = torch.stack([torch.isfinite(tensor).all() for _, tensor in named]).tolist()  # one wait for all
    return list(dict.fromkeys(name for (name, _), good in zip(named, finite, strict=True) if not good))


def check_finite(trainer: Training, allowed: Collection[str] = ()) -> None:
    """Before weights are saved: those of the model, and of the one that is evaluated, are finite.

    Args:
        allowed: names that may hold infinity, as they did when the training began (masks, say).
    Raises:
        TrainingDiverged: in all processes; names the tensors of this one.
    """
    names = [name for name in not_finite(trainer.model, trainer.evaluated_model) if name not in allowed]
    if distributed.any_process(bool(names), trainer.device):
        what = listed(names, 5) if names else "weights of another process"
        raise TrainingDiverged(_message(f"step {trainer.step}: some weights or statistics are not finite: {what}"))


def _message(what: str) -> str:
    return (
        f"{what}. Nothing of it was saved.\n"
        "  Often the learning rate is too high (train.optimizer.lr), the warm-up too short, or gradients explode\n"
        "  (train.clip_gradients=1.0 bounds them). train.amp=off shows whether reduced precision is the reason"
    )
