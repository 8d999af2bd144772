"""Models: the contracts, common backbones, necks and losses, and the Model that runs them."""

import vertebra._torch  # noqa: F401  first: says so where torch and torchvision do not fit
from vertebra.models.base_model import BaseModel
from vertebra.models.batch import Batch
from vertebra.models.build import build_model
from vertebra.models.class_rows import ClassRows
from vertebra.models.contracts import Backbone, Head, Loss, Neck, ShapeSpec
from vertebra.models.fuse import fuse_conv_bn
from vertebra.models.model import Model
from vertebra.models.weights import LoadReport, load_weights, read_checkpoint, read_weights

__all__ = [
    "Backbone",
    "BaseModel",
    "Batch",
    "ClassRows",
    "Head",
    "LoadReport",
    "Loss",
    "Model",
    "Neck",
    "ShapeSpec",
    "build_model",
    "fuse_conv_bn",
    "load_weights",
    "read_checkpoint",
    "read_weights",
]
