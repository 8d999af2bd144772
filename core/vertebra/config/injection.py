"""Arguments that the framework gives to a component because it knows them: a recipe does not set them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

from vertebra._deprecation import VertebraDeprecationWarning
from vertebra.errors import PluginError

__all__ = [
    "INJECTED",
    "WHERE_KNOWN",
    "Labels",
    "count_classes",
    "facts_of_head",
    "facts_of_model",
    "is_injected",
    "known_facts",
    "labels_of",
    "may_be_written",
    "outputs_of",
]

Labels = Literal["things", "stuff", "all"]
"""Which classes of a dataset a head has scores for, see `Head.labels`."""
_CONTRACTS = ("vertebra.models.contracts", "vertebra.models.base_model")

_OF_DATASET = ("num_classes", "metadata")
_MODEL_PARTS = ("input_shape", *_OF_DATASET)
INJECTED = {
    "model": (*_OF_DATASET, "in_channels"),
    "backbone": _OF_DATASET,
    "neck": _MODEL_PARTS,
    "head": _MODEL_PARTS,
    "loss": _MODEL_PARTS,
    "part": _MODEL_PARTS,
    "transform": ("metadata",),
    "sampler": ("dataset", "metadata"),
    "evaluator": ("dataset", "metadata", "num_classes", "output_dir"),
}
"""By kind the promised arguments. `ComponentSpec.build` gives these and no others, or says that one is not known."""

WHERE_KNOWN = {
    "input_shape": "It is known in necks and heads of a model, and in what is nested there; in a model of your own a "
    "backbone or neck gives it to the arguments after its own (one in a list or dict does not)",
    "num_classes": "It is the number of the dataset's thing_classes or stuff_classes: set one of them in its "
    "metadata, or write num_classes",
    "metadata": "It is that of the dataset, or of the checkpoint that a model was loaded from",
    "in_channels": "It is the number of channels that data.image gives",
    "dataset": "It is the one that samplers and evaluators are built for",
    "output_dir": "It is the folder of an evaluation",
}
"""The second half of an error: what the argument is, and where it is known."""


def is_injected(kind: str, argument: str) -> bool:
    """Whether a component of this kind gets the argument without a recipe writing it."""
    return argument in INJECTED.get(kind, ())


def may_be_written(kind: str, argument: str) -> bool:
    """Whether a recipe may write it all the same: `num_classes`, where a dataset's own count is not meant."""
    return argument == "num_classes" or not is_injected(kind, argument)


def known_facts(metadata: Any | None, **further: Any) -> dict[str, Any]:
    """What `ComponentSpec.build` can give once a dataset's metadata is known, and `further` facts.

    Args:
        metadata: of the dataset or of the trained model; None: nothing is known of it.
    """
    if metadata is None:
        return further
    count = count_classes(metadata)
    return {"metadata": metadata, **({} if count is None else {"num_classes": count}), **further}


def outputs_of(cls: type) -> set[str]:
    """Keys that a head's or model's class says it predicts; none where only its instances know."""
    outputs = getattr(cls, "task_outputs", ())
    return set() if isinstance(outputs, property) else set(outputs)


def labels_of(head: type) -> Labels:
    """Which classes a head class has scores for, as its `labels` says.

    Until vertebra 0.3, a class that predicts `sem_seg` alone and does not set `labels` stands for "stuff", with a
    warning; so heads written for earlier versions keep their number of classes.

    Raises:
        PluginError: `labels` is something else.
    """
    name = f"{head.__module__}.{head.__qualname__}"
    if any("labels" in vars(base) for base in head.__mro__ if base.__module__ not in _CONTRACTS):
        labels = head.labels  # type: ignore[attr-defined]  # a registered class need not derive from the contract
        if labels not in get_args(Labels):
            raise PluginError(f"{name}: labels is {labels!r}, expected {' or '.join(map(repr, get_args(Labels)))}")
        return labels
    outputs = outputs_of(head)
    if "sem_seg" not in outputs or outputs & {"instances", "panoptic_seg"}:
        return "things"
    warnings.warn(
        f'{name} predicts sem_seg and does not set `labels`: write `labels = "stuff"` in the class. Without it, '
        "vertebra 0.3 builds the head for the number of thing classes",
        VertebraDeprecationWarning,
        stacklevel=2,
    )
    return "stuff"


def facts_of_model(model: type, facts: Mapping[str, Any], written: int | None) -> dict[str, Any]:
    """The facts for a model: `num_classes` is the number of the classes that it asks for. Its heads ask for theirs.

    Args:
        written: `num_classes` as the recipe writes it for this model, which also holds for what is nested in it and has
            the same `labels`.
    """
    counts, labels = dict(facts.get("label_counts", {})), labels_of(model)
    if written is not None:
        counts[labels] = written
        return {**facts, "label_counts": counts, "num_classes": written}
    if "given_classes" in facts or labels not in counts:
        return dict(facts)
    return {**facts, "num_classes": counts[labels]}


def facts_of_head(head: type, facts: Mapping[str, Any], written: int | None) -> dict[str, Any]:
    """The facts for a head and what is nested in it: `num_classes` is the number of the classes that it asks for.

    Args:
        facts: `label_counts` holds {labels: number of classes}, as far as they are known; `given_classes` the number
            that this head takes all the same, but not the heads inside it.
        written: `num_classes` as the recipe writes it for this head. It also holds for heads inside it that have the
            same `labels`.
    """
    facts = dict(facts)
    given = facts.pop("given_classes", None)
    labels, counts = labels_of(head), dict(facts.get("label_counts", {}))
    if written is not None or given is not None:
        counts[labels] = given if written is None else written
    return {**facts, "label_counts": counts, **({"num_classes": counts[labels]} if labels in counts else {})}


def count_classes(metadata: Any) -> int | None:
    """Thing classes where the dataset has them, otherwise stuff classes."""
    for name in ("thing_classes", "stuff_classes"):
        classes = getattr(metadata, name, None)
        if classes:
            return len(classes)
    return None
