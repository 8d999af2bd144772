"""Data: datasets and their metadata, formats, transforms, samplers and loaders."""

from vertebra.data.build import (
    build_eval_loader,
    build_mapper,
    build_train_loader,
    drop_empty,
    load_dataset,
    load_split,
)
from vertebra.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from vertebra.data.coco import CocoFormat, register_coco_instances
from vertebra.data.formats import Dataset, Format
from vertebra.data.image import read_image, read_labels
from vertebra.data.labels import LabelReader
from vertebra.data.loader import EvalLoader, TrainLoader
from vertebra.data.mapper import Mapper
from vertebra.data.match_classes import match_classes
from vertebra.data.samplers import RepeatFactorSampler, Sampler, TrainingSampler
from vertebra.data.semantic_folder import SemanticFolderFormat
from vertebra.data.transforms import Sample, Transform

__all__ = [
    "CocoFormat",
    "Dataset",
    "DatasetCatalog",
    "EvalLoader",
    "Format",
    "LabelReader",
    "Mapper",
    "Metadata",
    "MetadataCatalog",
    "RepeatFactorSampler",
    "Sample",
    "Sampler",
    "SemanticFolderFormat",
    "TrainLoader",
    "TrainingSampler",
    "Transform",
    "build_eval_loader",
    "build_mapper",
    "build_train_loader",
    "drop_empty",
    "load_dataset",
    "load_split",
    "match_classes",
    "read_image",
    "read_labels",
    "register_coco_instances",
]
