"""Metrics: averages losses and times over a log interval and hands them to the writers."""

from __future__ import annotations

import time
from typing import Any

import torch

from vertebra.engine.hook import Hook, Training
from vertebra.runtime import distributed

__all__ = ["Metrics"]


class Metrics(Hook):
    """Every `every` steps and at the end: mean losses since the last time, learning rate, img/s, data wait.

    Sums stay on the device between the logs, so that no step waits for them. Runs before the writers.
    """

    def __init__(self, every: int, batch_size: int) -> None:
        self.every = every
        self.batch_size = batch_size
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, int] = {}  # a model that owns its step may give a number in some steps only
        self._timed_steps = 0
        self._started = 0.0
        self._waited = 0.0

    def before_train(self, trainer: Training) -> None:
        self.sums = {name: value.to(trainer.device) for name, value in self.sums.items()}  # a resumed state
        self._start_clock(trainer)

    def after_step(self, trainer: Training) -> None:
        values = {f"loss/{name}": loss for name, loss in trainer.losses.items()} | {"loss": trainer.loss}
        for name, value in (values | trainer.scalars).items():
            value = torch.as_tensor(value, dtype=torch.float32, device=trainer.device).detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
        self._timed_steps += 1
        if trainer.step % self.every == 0 or trainer.step == trainer.max_steps:
            self._report(trainer)

    def after_train(self, trainer: Training) -> None:
        if self.counts and self._timed_steps:  # stopped between two logs
            self._report(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = {str(name): torch.as_tensor(value) for name, value in state["sums"].items()}
        counts = state["counts"] if "counts" in state else dict.fromkeys(self.sums, state["count"])
        self.counts = {name: int(counts[name]) for name in self.sums}

    def _report(self, trainer: Training) -> None:
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        seconds = max(time.perf_counter() - self._started, 1e-9)
        means = distributed.mean_over_processes(means)
        step_seconds = seconds / self._timed_steps
        record = {
            "step": trainer.step,
            "loss": means.pop("loss"),
            **means,
            "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
            "images_per_second": self.batch_size / step_seconds,
            "step_seconds": step_seconds,
            "data_seconds": (trainer.data_seconds - self._waited) / self._timed_steps,
            "eta_seconds": (trainer.max_steps - trainer.step) * step_seconds,
        }
        if trainer.device.type == "cuda":
            record["gpu_memory_gib"] = torch.cuda.max_memory_allocated(trainer.device) / 2**30
        self.sums, self.counts = {}, {}
        trainer.write(distributed.broadcast_object(record))
        self._start_clock(trainer)

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        if "loss" not in record:  # an evaluation: its time does not belong to the next interval
            self._start_clock(trainer)

    def _start_clock(self, trainer: Training) -> None:
        self._timed_steps = 0
        self._started = time.perf_counter()
        self._waited = trainer.data_seconds
