"""Transforms that make one training image of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms.base import MixTransform
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, ImageDrawn
from vertebra.data.transforms.join import cannot_join, join_instances
from vertebra.data.transforms.sample import Sample, gray
from vertebra.errors import RecipeError

__all__ = ["MixUp", "Mosaic"]


class Mosaic(MixTransform):
    """Four images around a random point of a canvas twice as wide and high as the largest of them.

    A `RandomAffine` usually follows and cuts the middle out of the canvas.
    Source: Bochkovskiy et al., "YOLOv4", arXiv:2004.10934, section 3.3; the canvas as published with YOLOv5.

    Args:
        prob: how likely an image becomes a mosaic; the others go on as they are.
        center: the point where the four meet is uniform in this middle part of the canvas, in either direction.
        fill: gray value 0..255 where no image lies; labels of pixels are ignored there.
        min_visible: instances of whose box no more than this part lies on the canvas are dropped.
    """

    def __init__(self, prob: float = 1.0, center: float = 0.5, fill: int = 114, min_visible: float = 0.0) -> None:
        if not 0 <= prob <= 1 or not 0 <= center <= 1 or not 0 <= fill <= 255:
            raise ValueError(
                f"Mosaic needs prob and center in [0, 1] and fill in [0, 255], got prob={prob}, center={center}, "
                f"fill={fill}"
            )
        self.prob = prob
        self.center = center
        self.fill = fill
        self.min_visible = min_visible

    def count_others(self, rng: np.random.Generator) -> int:
        return 3 if rng.uniform() < self.prob else 0

    def mix(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        """Upper left, upper right, lower left, lower right: each touches the meeting point with a corner."""
        four = [sample, *others]
        height, width = (2 * max(each.size[axis] for each in four) for axis in (0, 1))
        middle = rng.uniform(0.5 - self.center / 2, 0.5 + self.center / 2, 2)
        y, x = int(height * middle[0]), int(width * middle[1])
        canvas = _blank(four, height, width, self.fill)
        for each, (down, right) in zip(four, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            h, w = each.size
            _paste(canvas, each, y if down else y - h, x if right else x - w, self.min_visible)
        return join_instances(canvas, four)


class MixUp(MixTransform):
    """The mean of two images, with the instances of both; the share is drawn from Beta(alpha, alpha).

    Both are laid into the upper left corner of a canvas that holds them. Labels of pixels stay those of the image with
    the larger share. Source: Zhang et al., "mixup", arXiv:1710.09412; alpha 32 as published with YOLOv5.

    Args:
        prob: how likely an image is mixed with another.
        alpha: the larger, the closer to half and half.
        fill: gray value 0..255 where only one of the images lies.
    """

    def __init__(self, prob: float = 0.1, alpha: float = 32.0, fill: int = 114) -> None:
        if not 0 <= prob <= 1 or alpha <= 0:
            raise ValueError(f"MixUp needs prob in [0, 1] and alpha above 0, got prob={prob}, alpha={alpha}")
        self.prob = prob
        self.alpha = alpha
        self.fill = fill

    def refuses(self, field: FieldSection) -> str | None:
        if field.geometry == "dense_map" and not field.labels:
            return (
                "the values of two images at one pixel have no mean that is true of either (`labels: true` keeps one's)"
            )
        return super().refuses(field)

    def count_others(self, rng: np.random.Generator) -> int:
        return 1 if rng.uniform() < self.prob else 0

    def mix(self, sample: Sample, others: Sequence[Sample], rng: np.random.Generator) -> Sample:
        (other,) = others
        height, width = (max(sample.size[axis], other.size[axis]) for axis in (0, 1))
        share = float(rng.beta(self.alpha, self.alpha))
        pair = [each.pad(0, 0, height - each.size[0], width - each.size[1], self.fill) for each in (sample, other)]
        canvas = _blank(pair, height, width, self.fill)
        canvas.image = _mean(pair[0].image, pair[1].image, share)
        stronger = pair[0] if share >= 0.5 else pair[1]
        for name, field in canvas.fields.items():
            if isinstance(field, ImageDrawn):
                canvas.fields[name] = replace(
                    field, values=_mean(pair[0].image_of(name)[0], pair[1].image_of(name)[0], share)
                )
                continue
            if isinstance(field, DenseMapDrawn) and not field.labels:
                raise cannot_join(name, "the values of two images at one pixel have no mean that is true of either")
            canvas.fields[name] = stronger.fields.get(name, field)
        return join_instances(canvas, pair)


def _blank(samples: Sequence[Sample], height: int, width: int, fill: int) -> Sample:
    """A canvas of one gray without instances, channels last in memory as images from files are."""
    first = samples[0]
    value, channels = gray(fill, first.highest, first.image), len(first.image)
    image = torch.full((height, width, channels), value, dtype=first.image.dtype).permute(2, 0, 1)
    canvas = Sample(
        image, ignore_label=first.ignore_label, keypoint_mirror=first.keypoint_mirror, highest=first.highest
    )
    for each in reversed(samples):
        dense = {name: field for name, field in each.fields.items() if isinstance(field, DenseMapDrawn)}
        for name, field in dense.items():
            if isinstance(field, ImageDrawn):
                dense[name] = replace(field, fill=gray(fill, field.highest, field.values))
        for name, field in dense.items():
            known = canvas.fields.get(name)
            try:
                fitting = field.fitting(known) if isinstance(known, DenseMapDrawn) else field
            except RecipeError as err:
                raise cannot_join(name, str(err)) from err
            canvas.fields[name] = fitting.blank((height, width))
    return canvas


def _mean(first: Tensor, second: Tensor, share: float) -> Tensor:
    mixed = first.float() * share + second.float() * (1 - share)
    return mixed if first.is_floating_point() else mixed.round().to(first.dtype)


def _paste(canvas: Sample, sample: Sample, top: int, left: int, min_visible: float) -> None:
    """Lays the sample on the canvas, its corner at (top, left); what hangs over is cut off."""
    y, x = max(-top, 0), max(-left, 0)
    height, width = min(sample.size[0], canvas.size[0] - top) - y, min(sample.size[1], canvas.size[1] - left) - x
    sample.crop(y, x, height, width, min_visible).lay_on(canvas, top + y, left + x)
