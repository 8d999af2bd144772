"""Before the first step: is there anything to learn for the model's heads in the training set?"""

from __future__ import annotations

from torch import Tensor

from vertebra.config.component import where_written
from vertebra.config.injection import labels_of
from vertebra.data import Dataset
from vertebra.data.missing_classes import missing_labels, missing_objects
from vertebra.data.semantic.label_facts import look_for_labels
from vertebra.errors import DataError, RecipeError
from vertebra.models import BaseModel, Head, Loss
from vertebra.models.losses.pixel_labels import check_weights, too_few_classes
from vertebra.runtime import distributed

__all__ = ["check_learnable"]


def check_learnable(model: BaseModel, dataset: Dataset) -> list[str]:
    """Warnings of named classes that the training set does not show, for the head of the log.

    Objects are counted in all annotations, labels in some of the files. A head that does not declare its outputs may
    learn from either. All processes have to call this; the main one reads.

    Raises:
        DataError: nothing that the heads learn from is there, or all of it is of one class.
        RecipeError: a loss that cannot learn the dataset's only class, or has another number of class weights.
    """
    return distributed.on_main_process(lambda: _check(model, dataset))


def _check(model: BaseModel, dataset: Dataset) -> list[str]:
    declared = [set(task.task_outputs) for task in model.tasks.values()]
    outputs, unknown = set().union(*declared), not all(declared)
    _check_losses(model, len(dataset.metadata.get("stuff_classes") or ()))
    missing = []
    if unknown or outputs & {"instances", "panoptic_seg"}:
        missing.append((missing_objects(dataset), "sem_seg" not in outputs))
    if unknown or "sem_seg" in outputs:
        facts = look_for_labels(dataset)
        labels = None if facts is None else missing_labels(facts, dataset.metadata)
        missing.append((labels, outputs == {"sem_seg"}))
    notes = []
    for found, nothing_else in missing:
        if found and found.nothing and nothing_else and not unknown:
            raise DataError(f"There is nothing to learn: {found.text}")
        if found:
            notes.append(f"warning: {found.text}")
    return notes


def _check_losses(model: BaseModel, num_labels: int) -> None:
    """Losses of the semantic heads, wherever those stand, against the number of labels."""
    semantic = (one for one in model.modules() if isinstance(one, Head) and labels_of(type(one)) == "stuff")
    for head in semantic:
        for loss in head.modules():
            if not isinstance(loss, Loss) or num_labels == 0:
                continue
            where = where_written(loss, type(head).__name__)
            if num_labels < loss.min_classes:
                raise RecipeError(f"{where}: {too_few_classes(loss, num_labels)}")
            weights = getattr(loss, "class_weights", None)
            if not isinstance(weights, Tensor) or weights.dim() != 1:
                continue
            try:
                check_weights(where, weights, getattr(head, "num_classes", num_labels))
            except ValueError as err:
                raise RecipeError(f"{err}.\n  Write one weight per class, in the order of the classes") from err
