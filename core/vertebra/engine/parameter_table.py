"""What a recipe trains: each parameter with its rate, weight decay and whether it is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vertebra.config.injection import known_facts
from vertebra.engine.parts import build_optimizer, frozen_parameters
from vertebra.models import build_model

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["parameter_table"]

_HEADER = ("parameter", "shape", "rate", "weight decay", "")


def parameter_table(recipe: Recipe) -> list[str]:
    """Lines: one per parameter of the recipe's model, in the model's order, and a summary.

    Rates are those that the schedule multiplies. The model is built on the CPU, without starting weights.

    Raises:
        RecipeError: the model cannot be built, or a pattern is for no parameter.
    """
    model = build_model(recipe, pretrained=False)
    frozen = frozen_parameters(recipe, model)
    optimizer = build_optimizer(recipe.train, model, known_facts(model.metadata))
    by_name = getattr(optimizer, "optimizers", {"": optimizer})
    group_of = {
        parameter: (name, group)
        for name, each in by_name.items()
        for group in each.param_groups
        for parameter in group["params"]
    }
    rows = [_HEADER]
    for name, parameter in model.named_parameters():
        shape = "x".join(map(str, parameter.shape)) or "scalar"
        owner, group = group_of.get(parameter, ("", None))
        rate, decay = ("-", "-") if group is None else (f"{group['lr']:.6g}", f"{group.get('weight_decay', 0):.6g}")
        notes = [f"of {owner}"] if owner else []
        until = frozen.get(name, ()) or ([] if group is not None else [None])
        notes += [f"frozen{_how_long(one)}" for one in dict.fromkeys(until)]
        rows.append((name, shape, rate, decay, ", ".join(notes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    trained = sum(parameter.numel() for parameter in group_of)
    total = sum(parameter.numel() for parameter in model.parameters())
    groups = sum(len(each.param_groups) for each in by_name.values())
    return [*lines, "", f"{trained:,} trained numbers in {groups} groups, {total - trained:,} never trained"]


def _how_long(until: int | str | None) -> str:
    if until is None:
        return ""
    return f" for {until}" if isinstance(until, str) else f" until step {until}"
