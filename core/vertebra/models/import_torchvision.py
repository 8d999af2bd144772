"""torchvision's trained weights into a recipe's model: `vertebra import-torchvision`.

Every part says in `torchvision_names` what torchvision calls its parameters; `import_weights` applies those words.
For a backbone's classification weights no import is needed: `weights: torchvision:ResNet50_Weights.IMAGENET1K_V1`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vertebra.config import Recipe
from vertebra.errors import CheckpointError
from vertebra.models.base_model import BaseModel
from vertebra.models.import_weights import ImportReport, Layout, import_weights, translate_names
from vertebra.models.weights import LoadReport, load_weights, read_weights

__all__ = ["TORCHVISION", "ImportReport", "import_torchvision", "load_torchvision"]

TORCHVISION = Layout(
    library="torchvision",
    attribute="torchvision_names",
    prefixes=("", "backbone.", "backbone.body."),
    # The auxiliary classifier serves training alone; a ResNet's `fc` classifies whole images.
    extra=r"aux_classifier\..+|(backbone\.(body\.)?)?fc\.(weight|bias)",
)


def import_torchvision(
    weights: str | Path,
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    num_classes: int | None = None,
    force: bool = False,
    partial: bool = False,
) -> ImportReport:
    """Writes `output`, a `.pth` with the model of `recipe` filled with torchvision's `weights`.

    Args:
        weights: path or URL of a `.pth`, or `torchvision:FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1`; nothing in it
            is executed.
        recipe: of the same model; where its heads leave `num_classes` out, it is worked out from the shapes. If it has
            no auxiliary head, the auxiliary classifier is dropped from the weights.
        output: left alone if it exists, unless `force`.
        partial: parameters that the weights do not have stay as new, and entries without a place in the model are
            dropped; otherwise either is an error.

    Raises:
        CheckpointError: the weights cannot be read, do not fit the recipe's model, or `output` exists.
    """
    return import_weights(TORCHVISION, weights, recipe, output, num_classes=num_classes, force=force, partial=partial)


def load_torchvision(model: BaseModel, weights: Mapping[str, Tensor] | str | Path) -> LoadReport:
    """Fills a model with torchvision's weights, a state dict or a file.

    Returns:
        What was loaded; entries of an auxiliary or image classifier that the model does not have are in `unexpected`.
    Raises:
        CheckpointError: a parameter of the model is not in the weights or has another shape, or another entry of the
            weights has no place in the model.
    """
    given = weights if isinstance(weights, Mapping) else read_weights(weights)
    source = "the weights" if isinstance(weights, Mapping) else weights
    renamed, unused = translate_names(given, model, TORCHVISION)
    if not renamed:
        raise CheckpointError(f"{source}: none of its names is one of torchvision's for this model")
    if unplaced := TORCHVISION.unplaced(unused):
        raise CheckpointError(
            f"{source}: {len(unplaced)} entries have no place in the model: {', '.join(unplaced[:8])}"
        )
    report = load_weights(model, {own: given[name] for own, name in renamed.items()}, source=source)
    report.unexpected += unused
    return report
