"""The instances of several samples in one."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.data.transforms.drawn_pixels import DenseMapDrawn
from vertebra.data.transforms.sample import Sample
from vertebra.errors import RecipeError

__all__ = ["join_instances"]


def join_instances(canvas: Sample, samples: Sequence[Sample]) -> Sample:
    """The canvas with the instances of all samples, whose coordinates count from its corner already.

    Masks stay polygons if all samples have polygons, else all become bitmasks. The canvas has its dense maps already.

    Raises:
        RecipeError: a field of the samples cannot be joined.
    """
    canvas.matrix = samples[0].matrix
    given = [each for each in samples if each.count is not None]
    counts = [each.count or 0 for each in given]
    drawn = {name: type(field) for each in samples for name, field in each.fields.items()}
    for name, kind in drawn.items():
        if issubclass(kind, DenseMapDrawn):
            continue
        try:
            canvas.fields[name] = kind.joined([each.fields.get(name) for each in given or samples], counts, canvas.size)
        except RecipeError as err:
            raise cannot_join(name, str(err)) from err
    return canvas


def cannot_join(name: str, why: str) -> RecipeError:
    """The refusal of a transform that joins images."""
    return RecipeError(
        f"field {name}: images that have it cannot be joined, as {why}.\n"
        "  Remove transforms that join images (Mosaic, MixUp) from data.train_transforms, or the field from data.fields"
    )
