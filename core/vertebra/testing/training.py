"""A few steps by a recipe, on few generated images: whether a component takes part in a real training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebra.config import ComponentSpec, Recipe, load_recipe
from vertebra.engine import Trainer
from vertebra.testing.checks import require

__all__ = ["check_trains_by_recipe", "specs_of"]

_SHAPES = {"format": "shapes", "images": 8, "val_images": 4, "size": [64, 96]}


def check_trains_by_recipe(
    recipe: str,
    kind: str,
    component: str,
    overrides: Sequence[str] = (),
    *,
    steps: int = 2,
    semantic: bool = False,
) -> dict[str, float | None]:
    """Trains `steps` steps of a recipe that names the component, on a few small pictures, and evaluates the end.

    Args:
        semantic: the pictures have semantic labels; nothing is evaluated, for the recipe's classes may be others.
    Returns:
        The run's latest numbers.
    """
    images = {**_SHAPES, "labels": ["semantic"]} if semantic else _SHAPES
    small: list[dict[str, Any]] = [
        {"data.train": {**images, "split": "train"}, "data.val": None if semantic else {**images, "split": "val"}},
        {"data.test": None, "data.train_transforms": [], "data.eval_transforms": []},
        {"data.workers": 0, "train.steps": steps, "train.batch_size": 2, "train.log_every": 1},
        {"evaluate.report": False, "evaluate.split": "val", "train.device": "cpu"},
    ]
    loaded = load_recipe(recipe, [*small, *overrides])
    named = [spec.name for spec in specs_of(loaded) if spec.kind == kind]
    require(component in named, f"recipe {recipe} names the {kind}s {', '.join(named) or 'none'}, not {component}")
    with tempfile.TemporaryDirectory() as folder:
        results = Trainer(loaded, output_dir=Path(folder) / "run").train()
    loss = results.get("loss")
    require(loss is not None and math.isfinite(loss), f"after {steps} steps of {recipe} the loss is {loss}")
    return results


def specs_of(recipe: Recipe) -> list[ComponentSpec]:
    """Every component that a recipe names in its model, training and evaluation."""
    top = [
        recipe.model.whole,
        recipe.train.optimizer,
        recipe.train.schedule,
        *recipe.train.hooks,
        *recipe.evaluate.evaluators,
    ]
    return [one for spec in top for one in (spec, *spec.nested())]
