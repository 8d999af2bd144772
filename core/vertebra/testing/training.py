"""A few steps by a recipe, on few generated images: whether a component takes part in a real training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertebra.config import ComponentSpec, Recipe, load_recipe
from vertebra.engine import Hook, Trainer
from vertebra.testing.checks import require

__all__ = ["BreakAt", "Interrupted", "check_trains_by_recipe", "small_run", "specs_of"]

_SHAPES = {"format": "shapes", "images": 8, "val_images": 4, "size": [64, 96]}


def check_trains_by_recipe(
    recipe: str,
    kind: str,
    component: str,
    overrides: Sequence[str] = (),
    *,
    steps: int = 2,
    semantic: bool = False,
    generated: bool = True,
    keep_transforms: bool = False,
) -> dict[str, float | None]:
    """Trains `steps` steps of a recipe that names the component, on a few small pictures, and evaluates the end.

    Args:
        semantic: the pictures have semantic labels; nothing is evaluated, for the recipe's classes may be others.
        generated: on generated pictures; otherwise on the recipe's own data.
        keep_transforms: with the recipe's own transforms.
    Returns:
        The run's latest numbers.
    """
    settings = small_run(steps, semantic=semantic, generated=generated)
    if not keep_transforms and generated:
        settings.append({"data.train_transforms": [], "data.eval_transforms": []})
    loaded = load_recipe(recipe, [*settings, *overrides])
    named = [spec.name for spec in specs_of(loaded) if spec.kind == kind]
    require(component in named, f"recipe {recipe} names the {kind}s {', '.join(named) or 'none'}, not {component}")
    with tempfile.TemporaryDirectory() as folder:
        results = Trainer(loaded, output_dir=Path(folder) / "run").train()
    loss = results.get("loss")
    require(loss is not None and math.isfinite(loss), f"after {steps} steps of {recipe} the loss is {loss}")
    return results


def small_run(steps: int, *, semantic: bool = False, generated: bool = True) -> list[dict[str, Any]]:
    """Overrides for a few steps with two images each on the CPU; arguments of `check_trains_by_recipe`."""
    images = {**_SHAPES, "labels": ["keypoints", *(["semantic"] if semantic else [])]}  # the images stay the same
    data: list[dict[str, Any]] = [
        {"data.train": {**images, "split": "train"}, "data.val": None if semantic else {**images, "split": "val"}},
        {"data.test": None, "evaluate.split": "val"},
    ]
    return [
        *(data if generated else ()),
        {"data.workers": 0, "train.steps": steps, "train.batch_size": 2, "train.log_every": 1},
        {"evaluate.report": False, "train.device": "cpu"},
    ]


class Interrupted(Exception):
    """Raised by `BreakAt`."""


class BreakAt(Hook):
    """Ends a training with an error once `step` steps are done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise Interrupted


def specs_of(recipe: Recipe) -> list[ComponentSpec]:
    """Every component that a recipe names, those inside others too."""
    data, train = recipe.data, recipe.train
    sets = [
        one for split in (data.train, data.val, data.test) for one in (split if isinstance(split, list) else [split])
    ]
    top = [
        recipe.model.whole,
        *(one for one in sets if isinstance(one, ComponentSpec)),
        *(data.train_transforms or ()),
        *(data.eval_transforms or ()),
        *(one for one in (data.sampler, train.optimizer, train.schedule) if isinstance(one, ComponentSpec)),
        *train.hooks,
        *recipe.evaluate.evaluators,
    ]
    return [one for spec in top for one in (spec, *spec.nested())]
