"""The contracts of transforms: a `Sample` and a random generator in, a `Sample` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vertebra.config.extra_fields import Geometry
from vertebra.data.transforms.sample import Sample

__all__ = ["MixTransform", "Transform"]


class Transform:
    """A change of an image together with all that is drawn on it.

    A subclass takes its settings in the constructor, draws what is random from `rng` and from nowhere else, and calls
    the sample's own geometry (`resize`, `flip`, `crop`, `pad`, `warp`) or replaces `sample.image` by one of equal size.
    So a sample depends on nothing but its generator, in whichever process and order samples are made.
    """

    component_kind: ClassVar[str] = "transform"
    needs_fields: ClassVar[Mapping[str, Geometry]] = {}
    """Declared fields that it asks for, as {name: geometry}; a training set without one is an error."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample: the one that was given, or another."""
        raise NotImplementedError


class MixTransform(Transform):
    """A transform that joins an image with others of the dataset, such as Mosaic.

    For each image it first says how many others it wants. The mapper draws them, reads them and takes them through the
    transforms that stand before this one, all with the same generator; then `mix` makes one sample of them.
    """

    def count_others(self, rng: np.random.Generator) -> int:
        """Number of other images that this image is joined with; 0 leaves it unchanged."""
        raise NotImplementedError

    def mix(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        """One sample of several; called only with as many others as it requested, at least one."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Without a dataset there is nothing to join: the sample as it is."""
        return sample
