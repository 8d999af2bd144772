"""RandomAffine: turn, scale, shear and shift the image at random, also in perspective."""

from __future__ import annotations

import math

import numpy as np

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms.base import Transform
from vertebra.data.transforms.sample import Sample

__all__ = ["RandomAffine"]


class RandomAffine(Transform):
    """Map the image at random into one of a fixed size; without any randomness its middle comes to the new middle.

    Behind a `Mosaic` this cuts the middle out of the canvas. The amounts are those that YOLOv5 publishes.

    Args:
        size: [height, width] of the result in pixels, or one number for a square; None: the size of the image.
        degrees: turned by at most this, either way.
        translate: moved by at most this part of the result's sides, either way.
        scale: the factor is uniform between these.
        shear: at most this many degrees, along x and along y.
        perspective: at most this in the last row of the matrix; 0.001 is much.
        fill: gray value 0..255 of what comes from outside.
        min_visible: instances of whose mapped box no more than this part is left are dropped.
        min_side: instances whose box has a side of no more pixels than this are dropped.
        tighten_boxes: make boxes anew from the masks: a turned box is larger than its object.
        prob: how likely the amounts are drawn; otherwise they are all 0.
    """

    def __init__(
        self,
        size: list[int] | int | None = None,
        degrees: float = 0.0,
        translate: float = 0.1,
        scale: tuple[float, float] = (0.5, 1.5),
        shear: float = 0.0,
        perspective: float = 0.0,
        fill: int = 114,
        min_visible: float = 0.1,
        min_side: float = 2.0,
        tighten_boxes: bool = False,
        prob: float = 1.0,
    ) -> None:
        sides = [size, size] if isinstance(size, int) else size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"RandomAffine needs a size [height, width] of at least 1x1, or one number, got {size}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"RandomAffine needs 0 < scale[0] <= scale[1], got {list(scale)}")
        if min(degrees, translate, shear, perspective) < 0 or not 0 <= prob <= 1 or shear >= 90:
            raise ValueError(
                f"RandomAffine needs amounts of at least 0 and prob in [0, 1], got degrees={degrees}, "
                f"translate={translate}, shear={shear} (below 90), perspective={perspective}, prob={prob}"
            )
        self.size = sides
        self.degrees = degrees
        self.translate = translate
        self.scale = (scale[0], scale[1])
        self.shear = shear
        self.perspective = perspective
        self.fill = fill
        self.min_visible = min_visible
        self.min_side = min_side
        self.tighten_boxes = tighten_boxes
        self.prob = prob

    def refuses(self, field: FieldSection) -> str | None:
        slants = self.perspective > 0 and field.geometry == "rotated_box"
        return "a rotated box seen in perspective is not one any more (`perspective: 0` keeps it)" if slants else None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = self.size or sample.size
        matrix = self._matrix(sample.size, (height, width), rng)
        sample = sample.warp(matrix, height, width, self.fill, self.min_visible, self.min_side)
        return sample.boxes_from_masks() if self.tighten_boxes else sample

    def _matrix(self, old: tuple[int, int], new: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """(3, 3), from the old image to the new: all turns and shears are about the middle."""
        middle = _shift(-old[1] / 2, -old[0] / 2)
        if rng.uniform() >= self.prob:
            return _shift(new[1] / 2, new[0] / 2) @ middle
        slant = np.eye(3)
        slant[2, :2] = rng.uniform(-self.perspective, self.perspective, 2)
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        scale = rng.uniform(*self.scale)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        along_x, along_y = np.tan(np.radians(rng.uniform(-self.shear, self.shear, 2)))
        shear = np.array([[1, along_x, 0], [along_y, 1, 0], [0, 0, 1]])
        x, y = rng.uniform(0.5 - self.translate, 0.5 + self.translate, 2)
        return _shift(x * new[1], y * new[0]) @ shear @ turn @ slant @ middle


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
