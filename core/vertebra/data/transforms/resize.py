"""Transforms that choose the size of the image."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = [
    "LargeScaleJitter",
    "ResizeLetterbox",
    "ResizeShortestEdge",
    "ResizeStretch",
    "height_width",
    "shortest_edge_size",
]


class ResizeShortestEdge(Transform):
    """Resize so that the shorter side has a given length, unless the longer one would then exceed `max_size`.

    Source: Detectron2's transform of this name; the sizes are equal.

    Args:
        short_edge: length in pixels, or several of which one is drawn for each image.
        max_size: limit of the longer side in pixels.
        sample_style: `choice` draws one of the lengths, `range` a whole number from the first to the second.
    """

    def __init__(
        self, short_edge: list[int] | int, max_size: int = 1333, sample_style: Literal["choice", "range"] = "choice"
    ) -> None:
        edges = [short_edge] if isinstance(short_edge, int) else list(short_edge)
        if not edges or min(edges) < 1 or max_size < 1:
            raise ValueError(
                f"ResizeShortestEdge needs lengths of at least 1, got {short_edge} and max_size {max_size}"
            )
        if sample_style not in ("choice", "range"):
            raise ValueError(f"ResizeShortestEdge: sample_style is {sample_style!r}, expected 'choice' or 'range'")
        if sample_style == "range":
            if len(edges) == 1:
                edges = edges * 2
            if len(edges) != 2 or edges[0] > edges[1]:
                raise ValueError(f"ResizeShortestEdge: a range needs short_edge [lowest, highest], got {short_edge}")
        self.edges = edges
        self.max_size = max_size
        self.sample_style = sample_style

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.sample_style == "range":
            edge = int(rng.integers(self.edges[0], self.edges[1] + 1))
        else:
            edge = int(rng.choice(self.edges))
        return sample.resize(*shortest_edge_size(*sample.size, edge, self.max_size))


class ResizeLetterbox(Transform):
    """Resize so that the whole image fits into a fixed size, and pad the rest.

    Predictions are mapped back by scale alone, so `center` is for training only. With `pad: false` the model pads each
    batch by itself, by no more than it needs.

    Args:
        size: [height, width] in pixels, or one number for a square.
        pad: fill up to exactly `size`.
        center: the padding goes to both sides; otherwise to the right and the bottom.
        pad_value: gray value 0..255 of the padding.
        enlarge: also make small images larger.
    """

    def __init__(
        self,
        size: list[int] | int,
        pad: bool = True,
        center: bool = False,
        pad_value: int = 114,
        enlarge: bool = True,
    ) -> None:
        self.height, self.width = height_width(size, "ResizeLetterbox")
        self.pad = pad
        self.center = center
        self.pad_value = pad_value
        self.enlarge = enlarge

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.size
        scale = min(self.height / height, self.width / width)
        if not self.enlarge:
            scale = min(scale, 1.0)
        sample = sample.resize(max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
        if not self.pad:
            return sample
        down, right = self.height - sample.size[0], self.width - sample.size[1]
        top, left = (down // 2, right // 2) if self.center else (0, 0)
        return sample.pad(top, left, down - top, right - left, self.pad_value)


class ResizeStretch(Transform):
    """Resize to a fixed size, whatever becomes of the proportions.

    Args:
        size: [height, width] in pixels, or one number for a square.
    """

    def __init__(self, size: list[int] | int) -> None:
        self.height, self.width = height_width(size, "ResizeStretch")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample.resize(self.height, self.width)


class LargeScaleJitter(Transform):
    """Resize by a random scale, then cut out or pad to a fixed size.

    Source: Ghiasi et al., "Simple Copy-Paste", arXiv:2012.07177, section 3, as in Detectron2's ResizeScale and
    FixedSizeCrop: at scale 1 the image just fits into `size`; padding goes to the right and the bottom.

    Args:
        size: [height, width] of the result in pixels, or one number for a square.
        min_scale, max_scale: bounds of the uniform scale.
        pad_value: gray value 0..255 of the padding.
        min_visible: instances of whose box no more than this part is left are dropped.
        tighten_boxes: make boxes anew from the masks that are left.
    """

    def __init__(
        self,
        size: list[int] | int = 1024,
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        pad_value: int = 128,
        min_visible: float = 0.0,
        tighten_boxes: bool = False,
    ) -> None:
        self.height, self.width = height_width(size, "LargeScaleJitter")
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"LargeScaleJitter needs 0 < min_scale <= max_scale, got {min_scale} and {max_scale}")
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.pad_value = pad_value
        self.min_visible = min_visible
        self.tighten_boxes = tighten_boxes

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.size
        scale = rng.uniform(self.min_scale, self.max_scale)
        scale = min(self.height * scale / height, self.width * scale / width)
        sample = sample.resize(max(round(height * scale), 1), max(round(width * scale), 1))
        height, width = sample.size
        place = rng.uniform(0.0, 1.0)  # one number for both directions, as in the source
        top, left = round(max(height - self.height, 0) * place), round(max(width - self.width, 0) * place)
        sample = sample.crop(top, left, min(height, self.height), min(width, self.width), self.min_visible)
        if self.tighten_boxes:
            sample = sample.boxes_from_masks()
        return sample.pad(0, 0, self.height - sample.size[0], self.width - sample.size[1], self.pad_value)


def shortest_edge_size(height: int, width: int, short_edge: int, max_size: int) -> tuple[int, int]:
    """The (height, width) that `ResizeShortestEdge` gives an image; halves are rounded up."""
    scale = short_edge / min(height, width)
    new_height, new_width = (short_edge, scale * width) if height < width else (scale * height, short_edge)
    longest = max(new_height, new_width)
    if longest > max_size:
        scale = max_size / longest
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def height_width(size: list[int] | int, who: str) -> tuple[int, int]:
    """A size as transforms take it, checked; `who` is named in the error."""
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"{who} needs a size [height, width] of at least 1x1, or one number, got {size}")
    return sides[0], sides[1]
