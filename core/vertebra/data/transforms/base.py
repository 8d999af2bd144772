"""The contract of transforms: a `Sample` and a random generator in, a `Sample` out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vertebra.data.transforms.sample import Sample

__all__ = ["Transform"]


class Transform:
    """A change of an image together with all that is drawn on it.

    A subclass takes its settings in the constructor, draws what is random from `rng` and from nowhere else, and calls
    the sample's own geometry (`resize`, `flip`, `crop`, `pad`) or replaces `sample.image` by one of equal size. So a
    sample depends on nothing but its generator, in whichever process and order samples are made.
    """

    component_kind: ClassVar[str] = "transform"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The changed sample: the one that was given, or another."""
        raise NotImplementedError
