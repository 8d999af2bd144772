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
from vertebra.data.coco_panoptic import CocoPanopticFormat
from vertebra.data.file_pairs import pair_files, read_names, records_of
from vertebra.data.formats import Dataset, Format, resolve_path
from vertebra.data.image import read_image, read_labels
from vertebra.data.labels import LabelReader
from vertebra.data.loader import EvalLoader, TrainLoader
from vertebra.data.mapper import Mapper
from vertebra.data.match_classes import match_classes
from vertebra.data.samplers import RepeatFactorSampler, Sampler, TrainingSampler
from vertebra.data.semantic_classes import SemanticClasses
from vertebra.data.semantic_folder import SemanticFolderFormat
from vertebra.data.transforms import Sample, Transform
from vertebra_eval.json_file import Problems

__all__ = [
    "CocoFormat",
    "CocoPanopticFormat",
    "Dataset",
    "DatasetCatalog",
    "EvalLoader",
    "Format",
    "LabelReader",
    "Mapper",
    "Metadata",
    "MetadataCatalog",
    "Problems",
    "RepeatFactorSampler",
    "Sample",
    "Sampler",
    "SemanticClasses",
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
    "pair_files",
    "read_image",
    "read_labels",
    "read_names",
    "records_of",
    "register_coco_instances",
    "resolve_path",
]
