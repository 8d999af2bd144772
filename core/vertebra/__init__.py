"""Vertebra: a plugin framework for object detection and segmentation in PyTorch.

    from vertebra import Predictor, Trainer, build_model, evaluate, load_recipe

The public names below are imported on first use, so that `import vertebra` is instant and needs no torch.
"""

from __future__ import annotations

from vertebra._deprecation import former_names  # which finds modules by their former names, too
from vertebra_eval._lazy import lazy_exports

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
_get, __dir__, _names = lazy_exports(__name__, _HOMES)

__all__ = ["__version__", *_names]
__getattr__ = former_names(__name__, _get)
