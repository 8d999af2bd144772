"""Arguments that the framework gives to a component because it knows them: a recipe does not set them."""

from __future__ import annotations

from typing import Any

__all__ = ["INJECTED", "WHERE_KNOWN", "count_classes", "is_injected", "known_facts", "may_be_written"]

_OF_DATASET = ("num_classes", "metadata")
_MODEL_PARTS = ("input_shape", *_OF_DATASET)
INJECTED = {
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
    "input_shape": "It is known in necks and heads, and in what is nested there",
    "num_classes": "It is the number of the dataset's thing_classes or stuff_classes: set one of them in its "
    "metadata, or write num_classes",
    "metadata": "It is that of the dataset, or of the checkpoint that a model was loaded from",
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


def count_classes(metadata: Any) -> int | None:
    """Thing classes where the dataset has them, otherwise stuff classes."""
    for name in ("thing_classes", "stuff_classes"):
        classes = getattr(metadata, name, None)
        if classes:
            return len(classes)
    return None
