"""EarlyStop: ends a training that no longer gets better."""

from __future__ import annotations

import logging
from typing import Any, Literal

from vertebra.engine.hook import Hook, Training

__all__ = ["EarlyStop"]

logger = logging.getLogger(__name__)


class EarlyStop(Hook):
    """Stops after `patience` records in a row without a better value of `metric`.

    Args:
        metric: as in metrics.jsonl: of an evaluation (`bbox/AP`, needs train.evaluate_every) or of a log (`loss`).
        patience: evaluations (or logs) without progress that are allowed.
        better: `higher` or `lower`.
        min_change: smaller improvements do not count, in the metric's own unit.
    """

    def __init__(
        self,
        metric: str = "bbox/AP",
        patience: int = 5,
        better: Literal["higher", "lower"] = "higher",
        min_change: float = 0.0,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.metric = metric
        self.patience = patience
        self.sign = {"higher": 1.0, "lower": -1.0}[better]
        self.min_change = min_change
        self.best: float | None = None
        self.misses = 0
        self.seen = -1  # step of the latest record with the metric

    def before_train(self, trainer: Training) -> None:
        self._stop_if_done(trainer)  # a run that stopped so and is resumed

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        if self.metric not in record or record["step"] <= self.seen:
            return
        self.seen = record["step"]
        value = record[self.metric]
        if value is not None and (self.best is None or self.sign * (value - self.best) > self.min_change):
            self.best, self.misses = value, 0
        else:
            self.misses += 1
        self._stop_if_done(trainer)

    def after_train(self, trainer: Training) -> None:
        if self.seen < 0:
            logger.warning(
                "EarlyStop never saw %r. Evaluations during the training need train.evaluate_every.", self.metric
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "misses": self.misses, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = None if state["best"] is None else float(state["best"])
        self.misses, self.seen = int(state["misses"]), int(state["seen"])

    def _stop_if_done(self, trainer: Training) -> None:
        if self.misses >= self.patience:
            trainer.stop(f"{self.metric} did not improve on {self.best} in {self.misses} records")
