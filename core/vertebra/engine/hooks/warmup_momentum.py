"""WarmupMomentum: little momentum at first, while gradients still point all over the place."""

from __future__ import annotations

from vertebra.engine.hook import Hook, Training

__all__ = ["WarmupMomentum"]


class WarmupMomentum(Hook):
    """The momentum of SGD (or Adam's first beta) rises linearly to what it then stays at, as YOLOv5 trains.

    It depends on the step alone, so a resumed run goes on exactly.

    Args:
        steps: of the rise.
        start: momentum of the first step.
        end: momentum from step `steps` on; it takes the place of the optimizer's own.
    """

    def __init__(self, steps: int, start: float = 0.8, end: float = 0.937) -> None:
        if steps < 1 or not 0 <= start < 1 or not 0 <= end < 1:
            raise ValueError(
                f"WarmupMomentum needs steps of at least 1, start and end in [0, 1), got {steps}, {start}, {end}"
            )
        self.steps = steps
        self.start = start
        self.end = end

    def before_train(self, trainer: Training) -> None:
        if not all("momentum" in group or "betas" in group for group in trainer.optimizer.param_groups):
            name = type(trainer.optimizer).__name__
            raise ValueError(f"WarmupMomentum: {name} has no momentum; remove the hook, or use SGD or AdamW")

    def before_step(self, trainer: Training) -> None:
        share = min(trainer.step / self.steps, 1.0)
        momentum = self.start + (self.end - self.start) * share
        for group in trainer.optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])
