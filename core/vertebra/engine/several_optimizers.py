"""SeveralOptimizers: those of `train.optimizers`, each with the parameters of its own modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vertebra.errors import RecipeError
from vertebra_eval.nearest import listed, nearest

if TYPE_CHECKING:
    from vertebra.config.sections import OptimizerSection

__all__ = ["SeveralOptimizers", "build_several"]

_LISTED = 5


class SeveralOptimizers:
    """Optimizers by name. To hooks it looks like one: schedules set the rates of all groups.

    Args:
        optimizers: by the name under which a model's `training_step` asks for them.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self.optimizers = dict(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]


def build_several(
    sections: Mapping[str, OptimizerSection], model: nn.Module, facts: Mapping[str, Any]
) -> SeveralOptimizers:
    """The optimizers of a recipe for a model on its device.

    Raises:
        RecipeError: a module does not exist, has nothing to train, or is given twice; or parameters are in none.
    """
    owner: dict[str, str] = {}
    found = {}
    for name, section in sections.items():
        where = f"{section.whole.where}: train.optimizers.{name}"
        own = _parameters_of(model, section.modules or [name], where)
        twice = [one for one in own if one in owner]
        if twice:
            raise RecipeError(f"{where}: {twice[0]} is trained by {owner[twice[0]]} already; name other `modules`")
        owner |= dict.fromkeys(own, name)
        with _only(model, own):
            try:
                found[name] = section.whole.build(**facts).build(model)
            except ValueError as err:
                raise RecipeError(f"{where}: {err}") from err
    rest = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in owner]
    if rest:
        raise RecipeError(
            f"{len(rest)} trainable parameters are in none of train.optimizers ({', '.join(sections)}): "
            f"{listed(rest, _LISTED)}.\n  Name their module in `modules` of one, or freeze them: requires_grad_(False)"
        )
    return SeveralOptimizers(found)


def _parameters_of(model: nn.Module, modules: Sequence[str], where: str) -> list[str]:
    """Names of the trainable parameters below modules."""
    found: list[str] = []
    known = dict(model.named_modules())
    for module in modules:
        if not module or module not in known:
            names = [name for name in known if name]
            near = ", ".join(nearest(module, names)) or ", ".join(name for name in names if "." not in name)
            raise RecipeError(
                f"{where}: the model has no module {module!r}.\n  Nearest: {near or 'none'}. `modules` names those "
                "that it trains; without it, the one of the optimizer's name"
            )
        inside = (f"{module}.{name}" for name, one in known[module].named_parameters() if one.requires_grad)
        found += [name for name in inside if name not in found]
    if not found:
        raise RecipeError(f"{where}: nothing in {', '.join(modules)} is trained: it is frozen or has no parameters")
    return found


@contextlib.contextmanager
def _only(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside, all other parameters look frozen, so that an optimizer leaves them alone."""
    others = [one for name, one in model.named_parameters() if one.requires_grad and name not in set(names)]
    for one in others:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in others:
            one.requires_grad_(True)
