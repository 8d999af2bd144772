"""Data: datasets and their metadata, formats, transforms, samplers and loaders."""

from vertebra._deprecation import former_names
from vertebra.data.build import (
    build_eval_loader,
    build_mapper,
    build_train_loader,
    drop_empty,
    load_dataset,
    load_split,
)
from vertebra.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from vertebra.data.coco import CocoFormat, CocoPanopticFormat, register_coco_instances
from vertebra.data.formats import Dataset, Format, resolve_path
from vertebra.data.images import read_image, read_labels
from vertebra.data.images.readers import ImageReader
from vertebra.data.loader import EvalLoader, TrainLoader
from vertebra.data.mapper import Mapper
from vertebra.data.match_classes import match_classes
from vertebra.data.panoptic_labels import stuff_segment_names
from vertebra.data.samplers import RepeatFactorSampler, Sampler, TrainingSampler
from vertebra.data.semantic import (
    LabelReader,
    SemanticClasses,
    SemanticFolderFormat,
    pair_files,
    read_names,
    records_of,
)
from vertebra.data.shapes import ShapesFormat
from vertebra.data.transforms import Sample, Transform
from vertebra_eval.files import Problems

__all__ = [
    "CocoFormat",
    "CocoPanopticFormat",
    "Dataset",
    "DatasetCatalog",
    "EvalLoader",
    "Format",
    "ImageReader",
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
    "ShapesFormat",
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
    "stuff_segment_names",
]

__getattr__ = former_names(__name__)
