"""A recipe and weights to a model that is ready to be used: for prediction and export."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.config import Recipe, load_recipe
from vertebra.data import Metadata, load_split
from vertebra.engine.plugin_files import warn_of_changes
from vertebra.errors import CheckpointError, VertebraError
from vertebra.models import Model, build_model, load_weights
from vertebra.models.weights import read_contents, weights_in

__all__ = ["TrainedModel", "load_trained_model"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A model in eval mode on the CPU, with what is known of its training.

    Args:
        metadata: class names among other things; from the checkpoint, otherwise from the recipe's dataset. Without
            either, as with imported weights where the dataset is not at hand, it is empty.
    """

    model: Model
    recipe: Recipe
    metadata: Metadata
    weights: str


def load_trained_model(
    recipe: Recipe | str | Path, weights: str | Path | None = None, overrides: Sequence[str] = ()
) -> TrainedModel:
    """Builds a recipe's model and reads its weights.

    Args:
        recipe: a loaded recipe, a file, or `plugin:recipe`.
        weights: a checkpoint or weights file or URL; None: the recipe's `model.weights`.
        overrides: `key=value` laid over a recipe that is not loaded yet.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    source = str(weights) if weights is not None else loaded.model.weights
    if source is None:
        raise CheckpointError(
            f"{loaded.source}: no weights given, and model.weights is empty.\n"
            "  Fix it: Predictor(recipe, 'runs/NAME/final.pth'), or --weights on the command line"
        )
    content = read_contents(source)
    state = weights_in(content, source)
    warn_of_changes(loaded, source)
    remembered = _remembered(content)
    metadata, unknown = _metadata(remembered, loaded)
    num_classes = remembered.get("num_classes") if metadata is None else None
    model = build_model(loaded, num_classes, metadata, pretrained=False)
    load_weights(model, state, source=source)
    if metadata is None:
        logger.warning("The classes have no names, only numbers: %s", unknown)
        metadata = Metadata(loaded.name)
    return TrainedModel(model.eval(), loaded, metadata, source)


def _remembered(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file keeps beside weights: names and ids of classes after a training, `num_classes` after an import."""
    lists = ("classes", "stuff_classes", "category_ids", "stuff_category_ids")
    kinds: dict[str, type | tuple[type, ...]] = {**dict.fromkeys(lists, (list, tuple)), "num_classes": int}
    return {name: content[name] for name, kind in kinds.items() if isinstance(content.get(name), kind)}


def _metadata(remembered: dict[str, Any], recipe: Recipe) -> tuple[Metadata | None, str]:
    """Names and ids of classes from the checkpoint, otherwise from the recipe's dataset; or None and why."""
    things, stuff = list(remembered.get("classes", ())), list(remembered.get("stuff_classes", ()))
    if things == stuff:  # of a dataset without things a checkpoint calls the stuff `classes` as well
        things = []
    named = {key: names for key, names in (("thing_classes", things), ("stuff_classes", stuff)) if names}
    if named:
        metadata = Metadata(name=recipe.name)
        metadata.set(**named)
        for kind, key in (("thing", "category_ids"), ("stuff", "stuff_category_ids")):
            ids = remembered.get(key)
            if ids:
                numbers = {category_id: number for number, category_id in enumerate(ids)}
                metadata.set(**{f"{kind}_dataset_id_to_contiguous_id": numbers})
        return metadata, ""
    try:
        return load_split(recipe, recipe.evaluate.split).metadata, ""
    except VertebraError as err:  # not needed to predict, where weights or recipe tell the number of classes
        return None, str(err)
