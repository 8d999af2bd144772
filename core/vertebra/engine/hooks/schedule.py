"""ApplySchedule: sets the learning rates before each step."""

from __future__ import annotations

from vertebra.engine.hook import Hook, Training
from vertebra.engine.schedules import Schedule

__all__ = ["ApplySchedule"]


class ApplySchedule(Hook):
    """Each parameter group's rate becomes its own base rate times the schedule's factor."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.base_rates: list[float] = []

    def before_train(self, trainer: Training) -> None:
        self.base_rates = [group["lr"] for group in trainer.optimizer.param_groups]

    def before_step(self, trainer: Training) -> None:
        factor = float(self.schedule.factor(trainer.step, trainer.max_steps))  # NumPy's would not be read again
        for group, base in zip(trainer.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
