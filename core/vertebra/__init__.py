"""Vertebra: a plugin framework for object detection and segmentation in PyTorch.

    from vertebra import Predictor, Trainer, build_model, evaluate, load_recipe

The public names below are imported on first use, so that `import vertebra` is instant and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from vertebra import _deprecation  # finds modules by their former names

__version__ = "0.1.0"

_HOMES = {
    "vertebra.errors": (
        "CheckpointError",
        "DataError",
        "ExportError",
        "PluginError",
        "RecipeError",
        "SetupError",
        "TrainingDiverged",
        "VertebraError",
    ),
    "vertebra.registry": (
        "BACKBONES",
        "EVALUATORS",
        "FORMATS",
        "HEADS",
        "HOOKS",
        "LOSSES",
        "MODELS",
        "NECKS",
        "OPTIMIZERS",
        "PARTS",
        "SAMPLERS",
        "SCHEDULES",
        "TRANSFORMS",
        "Registry",
    ),
    "vertebra.config": ("Recipe", "load_recipe"),
    "vertebra.structures": (
        "BitMasks",
        "BoxMode",
        "Boxes",
        "ImageList",
        "Instances",
        "Keypoints",
        "PolygonMasks",
        "pairwise_iou",
    ),
    "vertebra.detection": ("AnchorGenerator", "Box2BoxTransform", "Matcher"),
    "vertebra.models": ("Backbone", "BaseModel", "Batch", "Head", "Loss", "Model", "Neck", "ShapeSpec", "build_model"),
    "vertebra.data": ("Dataset", "DatasetCatalog", "Format", "Metadata", "MetadataCatalog", "Transform"),
    "vertebra.engine": ("Hook", "Trainer"),
    "vertebra.evaluation": ("Evaluator", "evaluate"),
    "vertebra.export": ("export_onnx",),
    "vertebra.predictor": ("Predictor",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        new = _deprecation.new_name_of(name)
        if new is not None:
            return globals()[new] if new in globals() else __getattr__(new)
        raise AttributeError(f"module 'vertebra' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
