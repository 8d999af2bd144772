"""build_model: from a recipe's `model` section to a Model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vertebra.models.model import Model

if TYPE_CHECKING:
    from vertebra.config import ComponentSpec, Recipe

__all__ = ["build_model"]


def build_model(
    recipe: Recipe, num_classes: int | None = None, metadata: Any | None = None, *, pretrained: bool = True
) -> Model:
    """Builds backbone, neck and heads of a recipe, on the CPU, in training mode.

    The whole model's `model.weights` are not read here: see `vertebra.models.weights`.

    Args:
        recipe: a validated recipe; only its section `model` is read.
        num_classes: given to heads that leave it out; by default the number of classes in `metadata`.
        metadata: the dataset's, given to heads that ask for it.
        pretrained: False leaves out the backbone's own starting weights: right where the whole model's
            weights are loaded afterwards, so that the backbone's file need not be at hand.
    """
    section = recipe.model
    if num_classes is None and metadata is not None:
        num_classes = _count_classes(metadata)
    injected = {"num_classes": num_classes, "metadata": metadata}
    injected = {name: value for name, value in injected.items() if value is not None}

    backbone = (section.backbone if pretrained else _without_weights(section.backbone)).build(**injected)
    shapes = backbone.output_shape()
    neck = None
    if section.neck is not None:
        neck = section.neck.build(input_shape=shapes, **injected)
        shapes = neck.output_shape()
    heads = {name: spec.build(input_shape=shapes, **injected) for name, spec in section.heads.items()}
    return Model(
        backbone,
        neck,
        heads,
        pixel_mean=section.pixel_mean,
        pixel_std=section.pixel_std,
        pixel_order=section.pixel_order,
    )


def _without_weights(spec: ComponentSpec) -> ComponentSpec:
    """The backbone's block with `weights` (ours) and `pretrained` (timm's) switched off."""
    off = {"weights": None, "pretrained": False}
    return replace(spec, arguments={key: off.get(key, value) for key, value in spec.arguments.items()})


def _count_classes(metadata: Any) -> int | None:
    """Thing classes where the dataset has them, otherwise stuff classes."""
    for name in ("thing_classes", "stuff_classes"):
        classes = getattr(metadata, name, None)
        if classes:
            return len(classes)
    return None
