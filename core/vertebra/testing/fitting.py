"""Whether what the losses ask for is what `predict` finds: raw outputs are fitted without a network before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vertebra.testing.causes import likely_cause
from vertebra.testing.checks import check_losses, require, tensors_in
from vertebra.testing.found import shares_found

__all__ = ["Fit", "check_predicts_what_it_learns", "other_in_evaluation"]

_EVERY = 15  # steps between two looks at the predictions
_ENOUGH = 0.9
_STILL = 0.05  # the loss still falls where the last fifth of the steps makes up this share of all that it fell
_FASTER = 10.0


class Fit:
    """Raw outputs that move down the gradient of the losses until `predict` finds the ground truth in them.

    Args:
        raw: raw outputs of a batch in training; those without gradient stay as they are.
        losses_of: (raw, number of the step) -> losses.
        predict: raw, detached -> predictions.
        inputs: what the batch was made of, with `instances` and `sem_seg` where the part learns from them.
        own: parameters of the part, which move by a hundredth of the rate.
    """

    def __init__(
        self,
        raw: Any,
        losses_of: Callable[[Any, int], dict[str, Tensor]],
        predict: Callable[[Any], list[dict[str, Any]]],
        inputs: list[dict[str, Any]],
        own: Sequence[nn.Parameter] = (),
    ) -> None:
        self.free: list[Tensor] = []
        self.raw = _changed(raw, self._freed)
        self.losses_of, self.predict, self.inputs, self.own = losses_of, predict, inputs, own
        self.outputs: list[dict[str, Any]] = []
        self.history: list[float] = []

    def run(self, steps: int, lr: float) -> bool:
        """At most this many steps of Adam; True as soon as all is found, or nothing can be compared."""
        optimizer = torch.optim.Adam([{"params": self.free, "lr": lr}, {"params": list(self.own), "lr": lr / 100}])
        for step in range(1, steps + 1):
            losses = self.losses_of(self.raw, step - 1)
            total = check_losses(losses, "fitted raw outputs")
            self.history.append(float(total.detach()))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            if step % _EVERY == 0 or step == steps:
                self.outputs = self.predict(_changed(self.raw, Tensor.detach))
                if all(share >= _ENOUGH for share in shares_found(self.outputs, self.inputs).values()):
                    return True
        return False

    def still_falls(self) -> bool:
        """Whether the last fifth of the steps has lowered the loss much, measured by how far it fell."""
        part = max(1, len(self.history) // 5)
        before, last = self.history[-2 * part : -part], self.history[-part:]
        fall = sum(before) / max(len(before), 1) - sum(last) / len(last)
        return fall > _STILL * (self.history[0] - last[-1]) > 0

    def _freed(self, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        self.free.append(tensor.detach().clone().requires_grad_())
        return self.free[-1]


def check_predicts_what_it_learns(
    make: Callable[[], Fit], name: str, padded: tuple[int, int], steps: int, lr: float
) -> None:
    """Fits raw outputs, and a second time at ten times the rate where the loss still falls, as it does where they are
    pixels. What `predict` finds then is what the losses ask for.

    Args:
        make: a fit from the start.
        name: of the part.
        padded: (height, width) of the batch in input pixels.
        steps, lr: at most this many steps at this rate.
    """
    fit = make()
    require(bool(fit.free), f"the raw outputs of {name} have no gradient in training")
    if fit.run(steps, lr):
        return
    if fit.still_falls():
        faster = make()
        if faster.run(steps, lr * _FASTER):
            return
    raise AssertionError(_failure(fit, padded, steps, lr))


def _failure(fit: Fit, padded: tuple[int, int], steps: int, lr: float) -> str:
    first, last = fit.history[0], fit.history[-1]
    found = ", ".join(f"{what} {share:.0%}" for what, share in shares_found(fit.outputs, fit.inputs).items())
    advice = likely_cause(fit.outputs, fit.inputs, padded)
    if last < 0:
        advice = f"The loss is negative: is its sign reversed, so that training makes the predictions worse? {advice}"
    elif fit.still_falls():
        advice = f"The loss was still falling: set fit_lr ({lr:g}) to what suits the raw outputs' unit. Or: {advice}"
    return (
        f"raw outputs that were fitted to the losses for {steps} steps (from {first:.3g} to {last:.3g}) are not "
        f"predicted as the ground truth; found of it: {found}. {advice}"
    )


def other_in_evaluation(training: Any, evaluation: Any) -> bool:
    """Whether raw outputs of evaluation have tensors or dimensions that those of training do not have: what
    `losses` takes is then not what `predict` takes."""
    known = {place: tensor.dim() for place, tensor in tensors_in(training)}
    return any(known.get(place) != tensor.dim() for place, tensor in tensors_in(evaluation))


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested dicts, lists and tuples with each tensor replaced."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(child, change) for key, child in value.items()}
    if hasattr(value, "_make"):
        return value._make(_changed(child, change) for child in value)
    if isinstance(value, (list, tuple)):
        return type(value)(_changed(child, change) for child in value)
    return value
