"""The contracts of transforms: a `Sample` and a random generator in, a `Sample` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vertebra.config.component import where_written
from vertebra.config.extra_fields import FieldSection, Geometry
from vertebra.data.images.readers import ImageReader
from vertebra.data.transforms.sample import Sample
from vertebra.errors import RecipeError

__all__ = ["ColorTransform", "MixTransform", "Transform"]


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

    def refuses(self, field: FieldSection) -> str | None:
        """Why it cannot take along such a declared field, or None: said before a training starts."""
        return None


class ColorTransform(Transform):
    """A transform that changes pixel values and leaves all places as they are.

    A subclass says which numbers of channels and types it knows, draws its amounts in `draw`, once for all images that
    it changes, and implements `recolor`.

    Args:
        prob: how likely an image is changed at all.
        images: names of the images that it changes, see `data.fields`; others stay as they are.
    """

    channels: ClassVar[Sequence[int]] = ()
    """Numbers of channels that it knows; empty: any."""
    only_uint8: ClassVar[bool] = False

    def __init__(self, prob: float, images: Sequence[str]) -> None:
        self.prob = prob
        self.images = list(images)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.uniform() >= self.prob:
            return sample
        amounts = self.draw(rng)
        for name in self.images:
            pixels, highest = sample.image_of(name)
            self._check(name, len(pixels), pixels.dtype == torch.uint8)
            sample.set_image(name, self.recolor(pixels, highest, amounts, rng))
        return sample

    def draw(self, rng: np.random.Generator) -> Any:
        """The random amounts."""
        raise NotImplementedError

    def recolor(self, pixels: Tensor, highest: float, amounts: Any, rng: np.random.Generator) -> Tensor:
        """New pixels (C, H, W) of the same type; `highest` is the value of white."""
        raise NotImplementedError

    def check_images(self, readers: Mapping[str, ImageReader]) -> None:
        """Before a training: each image that it names is there, and it knows such images.

        Args:
            readers: of all images, by name.
        Raises:
            RecipeError: names the transform and the image.
        """
        for name in self.images:
            if name not in readers:
                raise RecipeError(
                    f"{where_written(self, type(self).__name__)}: no image is called {name!r}; "
                    f"there are: {', '.join(readers)}"
                )
            self._check(name, readers[name].channels, readers[name].dtype == "uint8")

    def _check(self, name: str, channels: int, is_uint8: bool) -> None:
        if (not self.channels or channels in self.channels) and (is_uint8 or not self.only_uint8):
            return
        counts = " or ".join(map(str, self.channels)) or "any number of"
        kind = " of 8 bits" if self.only_uint8 else ""
        raise RecipeError(
            f"{where_written(self, type(self).__name__)} knows images with {counts} channels{kind}, but {name!r} has "
            f"{channels} of {'8' if is_uint8 else 'more than 8'} bits.\n"
            "  Remove it from data.train_transforms, or name other images in its `images`"
        )


class MixTransform(Transform):
    """A transform that joins an image with others of the dataset, such as Mosaic.

    For each image it first says how many others it wants. The mapper draws them, reads them and takes them through the
    transforms that stand before this one, all with the same generator; then `mix` makes one sample of them.
    """

    def refuses(self, field: FieldSection) -> str | None:
        whole = not field.of_instances and field.geometry not in ("dense_map", "image")
        return "it belongs to the whole image, and this transform joins several" if whole else None

    def count_others(self, rng: np.random.Generator) -> int:
        """Number of other images that this image is joined with; 0 leaves it unchanged."""
        raise NotImplementedError

    def mix(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        """One sample of several; called only with as many others as it requested, at least one."""
        raise NotImplementedError

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Without a dataset there is nothing to join: the sample as it is."""
        return sample
