"""Transforms that cut windows of one size out of images of any size, as semantic segmentation trains on."""

from __future__ import annotations

import numpy as np

from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.resize import height_width
from vertebra.data.transforms.sample import Sample
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL

__all__ = ["ClassBalancedCrop", "PadTo", "RandomScaleCrop"]


class RandomScaleCrop(Transform):
    """Resize by a random scale, cut out a window of fixed size, and pad where the image is smaller than that.

    Source: Chen et al., "Rethinking Atrous Convolution", arXiv:1706.05587, section 4.1: scales from 0.5 to 2.0. The
    window is cut out before it is resized, which is faster and gives the same picture but for the rounding of the
    window to whole pixels of the image. Padding goes to the right and the bottom.

    Args:
        size: [height, width] of the result in pixels, or one number for a square.
        min_scale, max_scale: bounds of the uniform scale; at 1 the image keeps its resolution.
        max_class_share: windows of whose labeled pixels one class has more than this part are drawn anew, as in
            Detectron2's RandomCrop_CategoryAreaConstraint; 1 takes the first.
        tries: windows drawn at most; the last is taken as it is.
        pad_value: gray value 0..255 of the padding; labels get 255, no class.
        min_visible: instances of whose box no more than this part is left are dropped.
    """

    def __init__(
        self,
        size: list[int] | int,
        min_scale: float = 0.5,
        max_scale: float = 2.0,
        max_class_share: float = 1.0,
        tries: int = 10,
        pad_value: int = 124,
        min_visible: float = 0.0,
    ) -> None:
        self.height, self.width = height_width(size, "RandomScaleCrop")
        _check_scales("RandomScaleCrop", min_scale, max_scale)
        if not 0 < max_class_share <= 1 or tries < 1:
            raise ValueError(
                f"RandomScaleCrop needs max_class_share above 0 and up to 1, and tries of at least 1, "
                f"got {max_class_share} and {tries}"
            )
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.max_class_share = max_class_share
        self.tries = tries
        self.pad_value = pad_value
        self.min_visible = min_visible

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        window = _Window.at_scale(sample.size, (self.height, self.width), rng.uniform(self.min_scale, self.max_scale))
        (height, width), last = sample.size, self.tries - 1
        for attempt in range(self.tries):
            top = int(rng.integers(0, height - window.height + 1))
            left = int(rng.integers(0, width - window.width + 1))
            if attempt == last or self._is_mixed(sample, top, left, window):
                break
        return window.cut(sample, top, left, (self.height, self.width), self.pad_value, self.min_visible)

    def _is_mixed(self, sample: Sample, top: int, left: int, window: _Window) -> bool:
        if self.max_class_share >= 1 or sample.sem_seg is None:
            return True
        labels = sample.sem_seg[top : top + window.height, left : left + window.width]
        counts = labels.long().flatten().bincount(minlength=IGNORED_LABEL + 1)
        counts[IGNORED_LABEL] = 0
        return bool(counts.max() <= self.max_class_share * counts.sum()) and bool(counts.any())


class ClassBalancedCrop(Transform):
    """Cut out a window of fixed size around a pixel of a class that is drawn evenly among those in the image.

    So rare classes are seen as often as common ones, wherever they occur. The pixel lies anywhere in the window.

    Args:
        size: [height, width] of the result in pixels, or one number for a square; smaller images are padded.
        prob: how likely a window is chosen so; otherwise it is anywhere, as it is where no pixel has a class.
        min_scale, max_scale: the image is resized by a uniform scale, as in RandomScaleCrop.
        pad_value: gray value 0..255 of the padding; labels get 255, no class.
        min_visible: instances of whose box no more than this part is left are dropped.
    """

    def __init__(
        self,
        size: list[int] | int,
        prob: float = 1.0,
        min_scale: float = 1.0,
        max_scale: float = 1.0,
        pad_value: int = 124,
        min_visible: float = 0.0,
    ) -> None:
        self.height, self.width = height_width(size, "ClassBalancedCrop")
        _check_scales("ClassBalancedCrop", min_scale, max_scale)
        if not 0 <= prob <= 1:
            raise ValueError(f"ClassBalancedCrop: prob is {prob}, expected a number between 0 and 1")
        self.prob = prob
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.pad_value = pad_value
        self.min_visible = min_visible

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.sem_seg is None:
            raise DataError("ClassBalancedCrop looks for classes in semantic labels, but this dataset has none")
        window = _Window.at_scale(sample.size, (self.height, self.width), rng.uniform(self.min_scale, self.max_scale))
        labels = sample.sem_seg.numpy()
        present = np.setdiff1d(np.unique(labels), [IGNORED_LABEL])
        low, high = np.zeros(2, int), np.subtract(sample.size, (window.height, window.width))
        if rng.uniform() < self.prob and len(present):
            places = np.flatnonzero(labels == rng.choice(present))
            pixel = np.array(np.unravel_index(rng.choice(places), labels.shape))
            low = (pixel - (window.height, window.width) + 1).clip(low, high)
            high = pixel.clip(max=high)
        top, left = (int(value) for value in rng.integers(low, high + 1))
        return window.cut(sample, top, left, (self.height, self.width), self.pad_value, self.min_visible)


class PadTo(Transform):
    """Add pixels until the image has at least a given size. A model pads its batches by itself all the same.

    Args:
        size: [height, width] in pixels, or one number for both; larger images stay as they are.
        multiple: then pad on until both sides are multiples of this.
        center: the padding goes to both sides, which evaluation refuses; otherwise to the right and the bottom.
        pad_value: gray value 0..255 of the padding; labels get 255, no class.
    """

    def __init__(
        self, size: list[int] | int = 1, multiple: int = 1, center: bool = False, pad_value: int = 124
    ) -> None:
        self.height, self.width = height_width(size, "PadTo")
        if multiple < 1:
            raise ValueError(f"PadTo: multiple is {multiple}, expected at least 1")
        self.multiple = multiple
        self.center = center
        self.pad_value = pad_value

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.size
        down, right = (
            -(-max(side, wanted) // self.multiple) * self.multiple - side
            for side, wanted in ((height, self.height), (width, self.width))
        )
        top, left = (down // 2, right // 2) if self.center else (0, 0)
        return sample.pad(top, left, down - top, right - left, self.pad_value)


class _Window:
    """A window of the image, and the size it is resized to, for one scale."""

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        self.height, self.width = height, width  # pixels of the image
        self.new_height, self.new_width = new_height, new_width

    @classmethod
    def at_scale(cls, image_size: tuple[int, int], size: tuple[int, int], scale: float) -> _Window:
        """The window that gives `size`, or less where the whole image is smaller at this scale."""
        sides = []
        for side, wanted in zip(image_size, size, strict=True):
            scaled = max(round(side * scale), 1)
            sides.append((side, scaled) if scaled <= wanted else (min(max(round(wanted / scale), 1), side), wanted))
        (height, new_height), (width, new_width) = sides
        return cls(height, width, new_height, new_width)

    def cut(
        self, sample: Sample, top: int, left: int, size: tuple[int, int], pad_value: int, min_visible: float
    ) -> Sample:
        sample = sample.crop(top, left, self.height, self.width, min_visible)
        sample = sample.resize(self.new_height, self.new_width)
        return sample.pad(0, 0, size[0] - self.new_height, size[1] - self.new_width, pad_value)


def _check_scales(who: str, low: float, high: float) -> None:
    if not 0 < low <= high:
        raise ValueError(f"{who} needs 0 < min_scale <= max_scale, got {low} and {high}")
