"""Cityscapes, ADE20K, Pascal VOC, COCO-Stuff and Oxford-IIIT Pet for Vertebra: formats, and bases `datasets:NAME`."""

from vertebra_datasets.cityscapes_panoptic import CityscapesPanopticFormat
from vertebra_datasets.semantic_sets import (
    ADE20KFormat,
    CityscapesFormat,
    CocoStuffFormat,
    OxfordPetsFormat,
    VOCSegmentationFormat,
)

__all__ = [
    "ADE20KFormat",
    "CityscapesFormat",
    "CityscapesPanopticFormat",
    "CocoStuffFormat",
    "OxfordPetsFormat",
    "VOCSegmentationFormat",
]
