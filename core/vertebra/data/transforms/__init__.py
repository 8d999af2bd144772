"""Joint transforms of an image and what is drawn on it."""

from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.color import ColorJitter
from vertebra.data.transforms.geometry import RandomCrop, RandomFlip
from vertebra.data.transforms.resize import LargeScaleJitter, ResizeLetterbox, ResizeShortestEdge
from vertebra.data.transforms.sample import Sample

__all__ = [
    "ColorJitter",
    "LargeScaleJitter",
    "RandomCrop",
    "RandomFlip",
    "ResizeLetterbox",
    "ResizeShortestEdge",
    "Sample",
    "Transform",
]
