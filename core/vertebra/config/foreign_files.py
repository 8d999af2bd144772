"""What a file is that is given in the place of a recipe: configs of other tools, datasets, weights. For messages."""

from __future__ import annotations

from pathlib import Path

from vertebra.config.yaml_reader import Node, display
from vertebra.errors import RecipeError

__all__ = ["refuse_foreign_block", "refuse_foreign_suffix"]

_BY_SUFFIX = {
    **dict.fromkeys(
        (".pth", ".pt", ".pkl", ".safetensors", ".onnx", ".weights"),
        "these are weights. Name the recipe of their model, and the weights with --weights or model.weights",
    ),
    ".py": "a recipe is a YAML file. Python configs (Detectron2's LazyConfig, MMDetection) are not read; a local "
    "plugin is named by `plugins: [./my_head.py]` in a recipe, or by --plugin",
    ".cfg": "a recipe is a YAML file. Cfg files of Darknet are imported by a plugin's command (vertebra plugins)",
    ".xml": "this is not a recipe but labels, or a list of images. A recipe's data.train names a dataset: "
    "{format: coco, annotations: FILE.json, images: FOLDER}; labels of other formats have to be converted to COCO JSON",
}
_BY_SUFFIX |= dict.fromkeys((".txt", ".csv"), _BY_SUFFIX[".xml"])
_DATASET = (
    "In a recipe, data.train and data.val name a dataset each: {format: coco, annotations: FILE.json, images: FOLDER}"
)
_BY_KEYS = (  # (keys, the least number of them that a file has, what it is and what to do)
    (
        ("MODEL", "SOLVER", "DATASETS", "INPUT", "DATALOADER"),
        1,
        "this is a config of Detectron2. Write a recipe with the same parts (docs/detectron2.md; vertebra components "
        "lists them); vertebra import-detectron2 translates the weights",
    ),
    (
        ("images", "annotations", "categories"),
        2,
        f"this is a COCO dataset. {_DATASET}",
    ),
    (
        ("task", "mode", "imgsz", "epochs", "batch"),
        3,
        "these are training arguments of Ultralytics. A recipe names the model's parts and the data; vertebra config "
        "RECIPE shows all its settings",
    ),
    (
        ("nc", "backbone", "head", "scales"),
        2,
        "this is a model description of Ultralytics. A recipe names a backbone, a neck and heads by their components; "
        "vertebra components lists them",
    ),
    (
        ("names", "nc", "path", "train", "val"),
        2,
        f"this is a dataset description of Ultralytics. {_DATASET}; YOLO's label files have to be "
        "converted to COCO JSON",
    ),
)


def refuse_foreign_suffix(path: Path) -> None:
    """Raises RecipeError for a file that is not a block of YAML, where its name says what it is."""
    if cause := _BY_SUFFIX.get(path.suffix.lower()):
        raise RecipeError(f"{display(path)}: {cause}")


def refuse_foreign_block(root: Node) -> None:
    """Raises RecipeError for a block whose keys are those of another tool's file."""
    if "_base_" in root.value:
        return
    if "model" in root.value and isinstance(root.value["model"].value, dict):
        if "_target_" in root.value["model"].value:
            raise RecipeError(f"{root.where}: this is a LazyConfig of Detectron2. {_BY_KEYS[0][2].partition('. ')[2]}")
        return
    for keys, least, cause in _BY_KEYS:
        if sum(key in root.value for key in keys) >= least:
            raise RecipeError(f"{root.where}: {cause}")
