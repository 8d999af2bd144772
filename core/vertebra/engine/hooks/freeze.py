"""Freeze: parameters that are not trained, or not from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from vertebra.engine.hook import Hook, Training
from vertebra.engine.param_groups import matching

if TYPE_CHECKING:
    from vertebra.config.sections import FreezeSection

__all__ = ["Freeze", "frozen_by"]


class Freeze(Hook):
    """Keeps parameters from changing: no gradient, no weight decay.

    A norm whose own parameters are all frozen keeps its running statistics too, and normalizes by them, as in
    evaluation.

    Args:
        until: step from which on a parameter is trained, by name; None: never.
    """

    def __init__(self, until: Mapping[str, int | None]) -> None:
        self.until = dict(until)
        self._norms: list[nn.Module] = []  # those that are frozen now

    def before_train(self, trainer: Training) -> None:
        self._apply(trainer)

    def before_step(self, trainer: Training) -> None:
        if trainer.step in self.until.values():
            self._apply(trainer)
        for norm in self._norms:  # an evaluation may have put them back
            norm.eval()

    def _apply(self, trainer: Training) -> None:
        frozen = {name for name, step in self.until.items() if step is None or trainer.step < step}
        for name, parameter in trainer.model.named_parameters():
            if name in self.until:
                parameter.requires_grad_(name not in frozen)
        before, self._norms = self._norms, []
        for path, module in trainer.model.named_modules():
            own = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
            if own and own <= frozen and getattr(module, "running_mean", None) is not None:
                self._norms.append(module)
        for norm in before:
            norm.train(trainer.model.training)


def frozen_by(entries: Sequence[FreezeSection], model: nn.Module) -> dict[str, list[int | str | None]]:
    """{name: the `until` of each entry of `train.freeze` that it is in}. What the model itself has frozen stays so.

    Raises:
        ValueError: a pattern is for no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found: dict[str, list[int | str | None]] = {}
    for number, entry in enumerate(entries):
        for name in matching(entry.match, names, f"train.freeze.{number}.match"):
            if name in trainable:
                found.setdefault(name, []).append(entry.until)
    if found and found.keys() >= trainable:
        raise ValueError("train.freeze leaves nothing to train in the first step; freeze less")
    return found
