"""EMA: an exponential moving average of the weights, evaluated in place of the weights themselves."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from vertebra.engine.hook import Hook, Training

__all__ = ["EMA"]


class EMA(Hook):
    """After each step: average = d * average + (1 - d) * weights, over parameters and floating-point buffers.

    Evaluation and final.pth take the average. Source: Polyak, Juditsky, "Acceleration of Stochastic Approximation by
    Averaging", 1992, in the exponential form that detectors use.

    Args:
        decay: d once the average has run for long.
        ramp_steps: after n steps d is decay * (1 - exp(-n / ramp_steps)), so that the random start is forgotten
            sooner; 0: `decay` from the first step on.
    """

    state_like_model = ("average",)

    def __init__(self, decay: float = 0.9998, ramp_steps: int = 2000) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.ramp_steps = ramp_steps
        self.updates = 0
        self._average: nn.Module | None = None
        self._restored: dict[str, Tensor] | None = None

    @property
    def average(self) -> nn.Module:
        """The averaged model, in eval mode."""
        if self._average is None:
            raise RuntimeError("EMA has no average before `before_train`, which copies the trainer's model")
        return self._average

    def before_train(self, trainer: Training) -> None:
        self._average = trainer.evaluated_model = copy.deepcopy(trainer.model).eval().requires_grad_(False)
        if self._restored is not None:
            self.average.load_state_dict(self._restored)
            self._restored = None

    @torch.no_grad()
    def after_step(self, trainer: Training) -> None:
        self.updates += 1
        decay = self.decay
        if self.ramp_steps:
            decay *= 1 - math.exp(-self.updates / self.ramp_steps)
        averages, currents = [], []
        for average, current in zip(_tensors(self.average), _tensors(trainer.model), strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)  # counters
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(self.average.state_dict()), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored, self.updates = dict(state["average"]), int(state["updates"])


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
