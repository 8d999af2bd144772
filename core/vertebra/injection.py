"""Arguments that the framework gives to a component because it knows them: a recipe does not set them."""

from __future__ import annotations

__all__ = ["is_injected", "may_be_written"]

_MODEL_PARTS = ("input_shape", "num_classes", "metadata")
_INJECTED = {
    "backbone": _MODEL_PARTS,
    "neck": _MODEL_PARTS,
    "head": _MODEL_PARTS,
    "loss": _MODEL_PARTS,
    "part": _MODEL_PARTS,
    "transform": ("metadata",),
    "sampler": ("dataset", "metadata"),
    "evaluator": ("dataset", "metadata", "num_classes", "output_dir"),
}


def is_injected(kind: str, argument: str) -> bool:
    """Whether a component of this kind gets the argument without a recipe writing it."""
    return argument in _INJECTED.get(kind, ())


def may_be_written(kind: str, argument: str) -> bool:
    """Whether a recipe may write it all the same: `num_classes`, where a dataset's own count is not meant."""
    return argument == "num_classes" or not is_injected(kind, argument)
