"""YOLOv5's trained weights (releases 6 and 7) into a recipe's model: `vertebra yolo import-yolov5`.

The weights are a plain state dict, whose names are `model.<number>.<layer>...`: numbers 0 to 9 are the backbone, 10 to
23 the neck, 24 the head. A checkpoint with the whole module pickled is refused: reading it would run its code. Where
YOLOv5 itself is installed, `torch.save(model.float().state_dict(), "yolov5n.pth")` writes what is read here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vertebra import Recipe, load_recipe
from vertebra.engine import ImportReport, Layout, import_weights
from vertebra.errors import CheckpointError
from vertebra.models import read_weights
from vertebra_yolo.v5_head import COCO_ANCHORS

__all__ = ["YOLOV5", "import_yolov5", "rename_yolov5"]

_MODULES = {  # number of a module -> the part and its place there
    **{"0": "backbone.stem", "9": "backbone.stages.res5.2"},
    **{str(2 * i + 1): f"backbone.stages.res{i + 2}.0" for i in range(4)},
    **{str(2 * i + 2): f"backbone.stages.res{i + 2}.1" for i in range(4)},
    **{"10": "neck.reduce.1", "13": "neck.top_down.1", "14": "neck.reduce.0", "17": "neck.top_down.0"},
    **{"18": "neck.down.0", "20": "neck.bottom_up.0", "21": "neck.down.1", "23": "neck.bottom_up.1"},
    "24": "head",
}
_WORDS = [(r"\bcv([123])\.", r"conv\1."), (r"\.m\.(\d+)\.conv", r".blocks.\1.conv"), (r"\.bn\.", ".norm.")]
_STRIDES = (8, 16, 32)


def rename_yolov5(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of YOLOv5 to `backbone.`, `neck.` and `head.` with our parts' names; unknown ones stay as they are."""
    renamed = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(?:model\.)+(\d+)\.(.+)", name)
        new = name
        if match and match[1] in _MODULES:
            place = _MODULES[match[1]]
            new = f"{place}.{match[2]}"
            for pattern, words in _WORDS if place != "head" else ():
                new = re.sub(pattern, words, new)
        renamed[new] = value
    return renamed


YOLOV5 = Layout(
    library="YOLOv5",
    attribute="yolov5_names",
    constants=r"(.*\.)?num_batches_tracked|head\.anchors|head\.anchor_grid|head\.stride",
    prepare=rename_yolov5,
)


def import_yolov5(
    weights: str | Path,
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    num_classes: int | None = None,
    force: bool = False,
    partial: bool = False,
) -> ImportReport:
    """Writes `output`, a `.pth` with the model of `recipe` filled with YOLOv5's `weights`.

    Args:
        weights: a state dict as `.safetensors` or `.pth`; nothing in it is executed.
        recipe: of the same size, such as `yolo:yolov5n`; its number of classes comes from the weights.
        output: left alone if it exists, unless `force`.
        partial: parameters and anchors that the weights do not have stay the recipe's, and entries without a place in
            the model are dropped; otherwise either is an error.
    Raises:
        CheckpointError: the weights cannot be read, are not a detection model's, do not fit the recipe's model or its
            anchors, or `output` exists.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe))
    given = rename_yolov5(read_weights(str(weights)))
    if "head.m.0.weight" not in given:
        raise CheckpointError(
            f"{weights}: is not a state dict of YOLOv5's releases 6 or 7 (detection layer model.24.m.0.weight); "
            f"its names are like {', '.join(list(given)[:3]) or 'none, it is empty'}"
        )
    if any(name.startswith("head.proto.") for name in given):
        raise CheckpointError(
            f"{weights}: is a segmentation model of YOLOv5 (it has mask prototypes, model.24.proto), which has another "
            "mask branch than YOLOv5Head here (PrototypeMasks) and cannot be imported.\n"
            "  Import the detection model of this size, such as yolov5s instead of yolov5s-seg"
        )
    anchors = given.get("head.anchors")
    if anchors is not None:
        _check_anchors(anchors, recipe, weights)
    elif not partial:
        raise CheckpointError(
            f"{weights}: its anchors (model.24.anchors) are missing and cannot be compared with the recipe's.\n"
            "  If the recipe's are right: --partial"
        )
    return import_weights(YOLOV5, weights, recipe, output, num_classes=num_classes, force=force, partial=partial)


def _check_anchors(given: Tensor, recipe: Recipe, weights: str | Path) -> None:
    """The weights keep their anchors (L, A, 2) in cells of each level; ours belong to the recipe, in pixels."""
    strides = torch.tensor(_STRIDES, dtype=torch.float32).view(-1, 1, 1)
    learned = given.float() * strides if len(given) == len(_STRIDES) else given.float()
    for name, spec in recipe.model.heads.items():
        own = torch.tensor(spec.arguments.get("anchors") or COCO_ANCHORS, dtype=torch.float32)
        if own.shape != learned.shape or not torch.allclose(own, learned, rtol=0.01, atol=0.1):
            wanted = [[[round(side, 2) for side in anchor] for anchor in level] for level in learned.tolist()]
            raise CheckpointError(
                f"{weights}: its anchors are not those of model.heads.{name} in the recipe.\n"
                f"  Set them there: anchors: {wanted}"
            )
