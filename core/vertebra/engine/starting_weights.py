"""`model.weights`: weights to start from. Their classes may be others; they are matched by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vertebra.engine.dataset_facts import facts_in
from vertebra.models import load_weights
from vertebra.models.follow_classes import follow_classes
from vertebra.models.weights import read_contents, weights_in
from vertebra_eval.nearest import listed

if TYPE_CHECKING:
    from vertebra.config import Recipe
    from vertebra.models import BaseModel

__all__ = ["start_from"]

_LISTED = 20


def start_from(model: BaseModel, recipe: Recipe, source: str) -> str:
    """Loads what fits of a weights file into a model that was built from `recipe`, and returns a note for the log.

    Where the file names its classes and they are others, or in another order, rows of classes that the model has too
    are kept and the others start anew. Where it names none, what has the same shape is loaded.
    """
    content = read_contents(source)
    state = weights_in(content, source)
    kept = facts_in(content, source)
    lines = []
    if kept is not None and model.metadata is not None:
        state, anew = follow_classes(model, recipe, state, kept, model.metadata)
        for kind, what in (("thing_classes", "classes"), ("stuff_classes", "labels"), ("keypoint_names", "keypoints")):
            lines += _compared(kept.get(kind) or (), model.metadata.get(kind) or (), what)
        if anew:
            lines.append(
                f"  start anew whole, as their heads do not say which rows belong to a class: {listed(anew, _LISTED)}"
            )
    report = load_weights(model, state, strict=False, source=source)
    return "\n".join([f"starting weights {source}: {report}", *lines])


def _compared(there: Sequence[str], here: Sequence[str], what: str) -> list[str]:
    """What became of the classes, where the lists differ."""
    if list(there) == list(here) or not there or not here:
        return []
    parts = {
        "kept by name": [name for name in here if name in there],
        "start anew": [name for name in here if name not in there],
        "of the weights, not used": [name for name in there if name not in here],
    }
    return [f"  {what} {key}: {listed(names, _LISTED)}" for key, names in parts.items() if names]
