"""Joint transforms of an image and what is drawn on it."""

from vertebra._deprecation import former_names
from vertebra.data.transforms.affine import RandomAffine
from vertebra.data.transforms.base import ColorTransform, MixTransform, Transform
from vertebra.data.transforms.color import ColorJitter, HSVJitter
from vertebra.data.transforms.deform import ElasticDeform, RandomQuarterTurn, RandomRotation
from vertebra.data.transforms.geometry import RandomCrop, RandomFlip
from vertebra.data.transforms.intensity import GaussianNoise, RandomGamma
from vertebra.data.transforms.join import join_instances
from vertebra.data.transforms.mix import MixUp, Mosaic
from vertebra.data.transforms.resize import LargeScaleJitter, ResizeLetterbox, ResizeShortestEdge, ResizeStretch
from vertebra.data.transforms.sample import Sample
from vertebra.data.transforms.scale_crop import ClassBalancedCrop, PadTo, RandomScaleCrop

__all__ = [
    "ClassBalancedCrop",
    "ColorJitter",
    "ColorTransform",
    "ElasticDeform",
    "GaussianNoise",
    "HSVJitter",
    "LargeScaleJitter",
    "MixTransform",
    "MixUp",
    "Mosaic",
    "PadTo",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomGamma",
    "RandomQuarterTurn",
    "RandomRotation",
    "RandomScaleCrop",
    "ResizeLetterbox",
    "ResizeShortestEdge",
    "ResizeStretch",
    "Sample",
    "Transform",
    "join_instances",
]

__getattr__ = former_names(__name__)
