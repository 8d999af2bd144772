"""Detectron2's trained weights into a recipe's model: `vertebra import-detectron2`.

Every part says in `detectron2_names` what Detectron2 calls its parameters; `import_weights` applies those words.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vertebra.config import Recipe
from vertebra.detection import AnchorGenerator
from vertebra.models import import_weights as generic
from vertebra.models.base_model import BaseModel
from vertebra.models.caffe2_names import caffe2_to_detectron2, is_caffe2_name
from vertebra.models.import_weights import ImportReport, Layout

__all__ = ["DETECTRON2", "ImportReport", "import_detectron2", "translate_names"]


def _detectron2_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Caffe2's names in Detectron2's words; a file in those words already is returned as it is."""
    if not any(map(is_caffe2_name, weights)):
        return weights
    return {caffe2_to_detectron2(name) or name: value for name, value in weights.items()}


def _differing(given: Mapping[str, Tensor], model: BaseModel) -> list[str]:
    """Pixel normalization and anchors, which older files contain: those that are not the model's, with their values."""
    own = {"pixel_mean": model.pixel_mean, "pixel_std": model.pixel_std}
    generators = [module for module in model.modules() if isinstance(module, AnchorGenerator)]
    for level, anchors in enumerate(generators[0].cell_anchors if len(generators) == 1 else ()):
        own[f"cell_anchors.{level}"] = anchors
    differing = []
    for name, value in given.items():
        key = ".".join(name.split(".")[-2:])
        wanted = own.get(key)
        if wanted is None:
            if key.startswith("cell_anchors.") and len(generators) == 1:
                differing.append(f"{name}: the recipe has anchors of {len(generators[0].cell_anchors)} levels alone")
        elif value.shape != wanted.shape or not torch.allclose(value.float(), wanted, rtol=1e-3, atol=0.01):
            differing.append(f"{name} is {_rounded(value)}, the recipe's {_rounded(wanted)}")
    return differing


def _rounded(value: Tensor) -> list[float]:
    return [round(number, 2) for number in value.flatten().tolist()]


DETECTRON2 = Layout(
    library="Detectron2",
    attribute="detectron2_names",
    # Backbone weights often come without the module they sit in; these are the places that Detectron2 has for them.
    prefixes=("", "backbone.bottom_up.", "backbone."),
    # What Detectron2 saves beside weights: constants of the configuration, counters of batches.
    constants=r"pixel_(mean|std)|(.*\.)?(cell_anchors\.\d+|num_batches_tracked)|(.*\.)?anchor_generator\..*",
    folds_norms=True,
    prepare=_detectron2_names,
    differing=_differing,
)


def import_detectron2(
    weights: str | Path,
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    num_classes: int | None = None,
    force: bool = False,
    partial: bool = False,
) -> ImportReport:
    """Writes `output`, a `.pth` with the model of `recipe` filled with Detectron2's `weights`.

    Args:
        weights: path or URL of a `.pkl` or `.pth`, Detectron2's or Caffe2's; nothing in it is executed.
        recipe: of the same model; where its heads leave `num_classes` out, it is worked out from the shapes.
        output: left alone if it exists, unless `force`.
        partial: parameters that the weights do not have stay as new, and entries without a place in the model are
            dropped (to start a training from a backbone alone); otherwise either is an error.

    Raises:
        CheckpointError: the weights cannot be read, do not fit the recipe's model, or `output` exists.
    """
    return generic.import_weights(
        DETECTRON2, weights, recipe, output, num_classes=num_classes, force=force, partial=partial
    )


def translate_names(names: Iterable[str], model: BaseModel) -> tuple[dict[str, str], list[str]]:
    """Detectron2's parameter names to the model's, see `import_weights.translate_names`."""
    return generic.translate_names(names, model, DETECTRON2)
