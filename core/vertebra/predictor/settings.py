"""What can be changed of a trained model for a prediction: thresholds of its detection heads, and classes to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vertebra.detection import Suppression
from vertebra.errors import DataError, RecipeError
from vertebra.models import BaseModel, Head
from vertebra.structures import Instances
from vertebra_eval.nearest import nearest

__all__ = ["DetectionFilter", "class_numbers", "look_from_score", "set_thresholds"]

_MEANINGS = {
    "score_threshold": "a score threshold",
    "nms_threshold": "suppression by IoU (NMS)",
    "class_agnostic_nms": "a choice of suppression within or across classes",
    "max_detections": "a maximum number of detections",
}


def set_thresholds(
    model: BaseModel,
    *,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    class_agnostic_nms: bool | None = None,
    max_detections: int | None = None,
) -> None:
    """Changes what the heads' `predict` decides by; None leaves a value as the recipe has it.

    Raises:
        RecipeError: no head of the model has such a value.
    """
    wanted = {
        "score_threshold": score_threshold,
        "nms_threshold": nms_threshold,
        "class_agnostic_nms": class_agnostic_nms,
        "max_detections": max_detections,
    }
    for name, value in wanted.items():
        if value is not None and not _change(model, name, value):
            heads = ", ".join(f"{key or 'model'} ({type(task).__name__})" for key, task in model.tasks.items())
            raise RecipeError(f"{name} cannot be set: no head of this model has {_MEANINGS[name]}. Its heads: {heads}")


def look_from_score(model: BaseModel, score: float) -> None:
    """Lets the heads that have a score threshold look from this score on: none lower is lost, and none is worked on."""
    _change(model, "score_threshold", score)


def _change(model: BaseModel, name: str, value: float) -> bool:
    """Sets it in every head that has it, also within other heads; of a head without, in its parts. False where nothing
    has it.

    Not in the parts of a head that has it: the `nms_threshold` of a region proposal network does not decide about
    detections.
    """
    found = False
    for task in model.tasks.values():
        parts = [(part, _name_in(part, name)) for part in task.modules()]
        having = [(part, own) for part, own in parts if isinstance(getattr(part, own, None), (bool, int, float))]
        heads = [(part, own) for part, own in having if part is task or isinstance(part, Head)]
        for part, own in heads or having:
            setattr(part, own, value)
            found = True
    return found


def _name_in(part: torch.nn.Module, name: str) -> str:
    return "class_agnostic" if name == "class_agnostic_nms" and isinstance(part, Suppression) else name


@dataclass(frozen=True)
class DetectionFilter:
    """Which detections are of interest.

    Args:
        score: those from this score on.
        classes: of these class numbers; None: of all.
    """

    score: float = 0.0
    classes: tuple[int, ...] | None = None

    def __call__(self, instances: Instances) -> Instances:
        keep = instances.scores >= self.score
        if self.classes is not None:
            keep &= torch.isin(instances.pred_classes, torch.tensor(self.classes, device=keep.device))
        return instances if bool(keep.all()) else instances[keep]


def class_numbers(wanted: Sequence[str | int], class_names: Sequence[str]) -> tuple[int, ...]:
    """Names or numbers (from 0) of classes as numbers. A name that looks like a number is a name first.

    Raises:
        DataError: a name that no class has, or a number that is too large.
    """
    found = []
    for item in wanted:
        text = str(item)
        if text in class_names:
            found.append(list(class_names).index(text))
        elif text.isdecimal() and (not class_names or int(text) < len(class_names)):
            found.append(int(text))
        else:
            near = (
                ", ".join(nearest(text, class_names)) or ", ".join(class_names) or "this model's classes have no names"
            )
            raise DataError(
                f"none of the {len(class_names)} classes of this model is named {text!r}.\n  Nearest: {near}"
            )
    return tuple(dict.fromkeys(found))
