"""Models: the contracts, common backbones, necks and losses, and the Model that runs them."""

import vertebra._torch  # noqa: F401  first: says so where torch and torchvision do not fit
from vertebra._deprecation import former_names
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.base_model import BaseModel
from vertebra.models.batch import Batch, GroundTruth, describe_input
from vertebra.models.build import build_model
from vertebra.models.class_rows import ClassRows
from vertebra.models.contracts import Backbone, Head, Loss, Neck, ShapeSpec
from vertebra.models.detection_head import DetectionHead
from vertebra.models.fuse import fold_into, fuse_conv_bn
from vertebra.models.growth import check_archive
from vertebra.models.inference import InferenceMode
from vertebra.models.levels import chosen_level, finest_first, same_channels
from vertebra.models.model import Model
from vertebra.models.pickles import read_pickle_content
from vertebra.models.semantic import (
    SemanticHead,
    exported_labels,
    exported_scores,
    semantic_losses,
    semantic_predictions,
)
from vertebra.models.weights import LoadReport, fetch, load_weights, read_checkpoint, read_weights

__all__ = [
    "Backbone",
    "BaseModel",
    "Batch",
    "ClassRows",
    "DetectionHead",
    "GroundTruth",
    "Head",
    "InferenceMode",
    "LoadReport",
    "Loss",
    "Model",
    "Neck",
    "ResNet",
    "SemanticHead",
    "ShapeSpec",
    "build_model",
    "check_archive",
    "chosen_level",
    "describe_input",
    "exported_labels",
    "exported_scores",
    "fetch",
    "finest_first",
    "fold_into",
    "fuse_conv_bn",
    "load_weights",
    "read_checkpoint",
    "read_pickle_content",
    "read_weights",
    "same_channels",
    "semantic_losses",
    "semantic_predictions",
]

__getattr__ = former_names(__name__)
