"""What a model with a training step of its own minimizes: stand-ins for `vertebra.engine.Step`."""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vertebra.models import Batch
from vertebra.testing.checks import check_losses, require

__all__ = ["DescendingStep", "GradientStep", "RecordingStep", "collect_gradients", "minimized"]

NUMBERS = 8  # steps of which a loss may skip all but one


class RecordingStep:
    """Keeps what is minimized; computes nothing.

    Attributes:
        losses: {'step.minimize("optimizer")': sum of what it got}.
    """

    def __init__(self, number: int = 0, total: int = NUMBERS) -> None:
        self.number, self.total = number, total
        self.loss: Tensor | None = None
        self.losses: dict[str, Tensor] = {}

    def minimize(self, name: str, loss: Tensor, *, retain_graph: bool = False) -> None:
        require(
            isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad,
            f"step.minimize({name!r}, ...) gets a loss without gradient; expected a scalar that depends on weights",
        )
        key = f'step.minimize("{name}")'
        self.losses[key] = self.losses[key] + loss.squeeze() if key in self.losses else loss.squeeze()
        self.descend(name, loss, retain_graph)
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def descend(self, name: str, loss: Tensor, retain_graph: bool) -> None:
        pass


class GradientStep(RecordingStep):
    """Gradients are computed and added up, weights stay."""

    def descend(self, name: str, loss: Tensor, retain_graph: bool) -> None:
        loss.backward(retain_graph=retain_graph)


class DescendingStep(RecordingStep):
    """Each loss moves the parameters of its own optimizer.

    Args:
        optimizers: by name.
    """

    def __init__(self, number: int, total: int, optimizers: Mapping[str, torch.optim.Optimizer], clip: float) -> None:
        super().__init__(number, total)
        self.optimizers, self.clip = optimizers, clip

    def descend(self, name: str, loss: Tensor, retain_graph: bool) -> None:
        known = ", ".join(self.optimizers)
        require(name in self.optimizers, f"step.minimize({name!r}, ...): the recipe's optimizers are {known}")
        own = [one for group in self.optimizers[name].param_groups for one in group["params"]]
        self.optimizers[name].zero_grad()
        loss.backward(retain_graph=retain_graph, inputs=own)
        torch.nn.utils.clip_grad_norm_(own, self.clip)
        self.optimizers[name].step()


def collect_gradients(model: nn.Module, inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Takes training steps, here without an optimizer, until every parameter has a gradient, or 8 of them: a step may
    skip a loss. Returns what the first has logged."""
    model.zero_grad(set_to_none=True)
    first: dict[str, Tensor] = {}
    for number in range(NUMBERS):
        step = GradientStep(number)
        logged = model(inputs, step)
        check_losses(logged, "training_step", gradient=False)
        require(step.loss is not None, "training_step has not called step.minimize(name, loss), so nothing is learned")
        first = first or logged
        if all(one.grad is not None for one in model.parameters() if one.requires_grad):
            break
    return first


def minimized(model: Any, batch: Batch, number: int = 0, raw: Any = None, total: int = NUMBERS) -> dict[str, Tensor]:
    """{'step.minimize("optimizer")': loss} of one training step.

    Args:
        raw: these are the raw outputs of the batch, whatever the network says.
    Raises:
        unittest.SkipTest: they are given and the step does not use `compute` or `network`.
    """
    step, asked = RecordingStep(number, total), False
    if raw is None:
        model.training_step(batch, step)
        return step.losses
    compute, network = model.compute, model.network

    def given(images: Any, *args: Any, **options: Any) -> Any:
        nonlocal asked
        if images is batch or images is batch.images:
            asked = True
            return raw
        return (compute if isinstance(images, Batch) else network)(images, *args, **options)

    model.compute = model.network = given
    try:
        model.training_step(batch, step)
    finally:
        del model.compute, model.network
    if not asked:
        raise unittest.SkipTest(
            f"{type(model).__name__}.training_step uses neither self.compute(batch) nor self.network(batch.images), so "
            "that what it minimizes cannot be fitted without the network; test_overfits_eight_images tries the whole"
        )
    return step.losses
