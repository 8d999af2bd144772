"""A recipe and weights to a model that is ready to be used: for prediction and export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vertebra.config import Recipe, load_recipe
from vertebra.data import Dataset, Metadata, load_split
from vertebra.engine.dataset_facts import facts_in
from vertebra.engine.plugin_files import warn_of_changes
from vertebra.errors import CheckpointError, VertebraError
from vertebra.models import BaseModel, build_model, load_weights
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

    model: BaseModel
    recipe: Recipe
    metadata: Metadata
    weights: str


def load_trained_model(
    recipe: Recipe | str | Path,
    weights: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    dataset: Dataset | None = None,
) -> TrainedModel:
    """Builds a recipe's model and reads its weights.

    Args:
        recipe: a loaded recipe, a file, or `plugin:recipe`.
        weights: a checkpoint or weights file or URL; None: the recipe's `model.weights`.
        overrides: `key=value` laid over a recipe that is not loaded yet.
        dataset: names the classes where the weights do not; None: the recipe's dataset of `evaluate.split`.
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
    metadata, unknown = facts_in(content, source), ""
    if metadata is not None and "metadata" not in content and dataset is not None:  # lists of names alone
        metadata = _completed(metadata, dataset.metadata)
    if metadata is None:  # not needed to predict, where weights or recipe tell the number of classes
        try:
            metadata = (dataset or load_split(loaded)).metadata
            logger.warning("%s: names no classes; they are taken as those of dataset %s", source, metadata.name)
        except VertebraError as err:
            unknown = str(err)
    count = content.get("num_classes")
    num_classes = count if metadata is None and isinstance(count, int) else None
    model = build_model(loaded, num_classes, metadata, pretrained=False)
    load_weights(model, state, source=source)
    if metadata is None:
        logger.warning("The classes have no names, only numbers: %s", unknown)
        metadata = Metadata(loaded.name)
    return TrainedModel(model.eval(), loaded, metadata, source)


def _completed(metadata: Metadata, in_dataset: Metadata) -> Metadata:
    """The dataset's facts (keypoint names among them) where its classes are those that the weights name."""
    same = all(metadata.get(key, []) == list(in_dataset.get(key) or ()) for key in ("thing_classes", "stuff_classes"))
    return in_dataset if same else metadata
