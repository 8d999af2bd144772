"""What is drawn on an image, by geometry: how each is moved, cut at the border, picked from and joined.

A `Sample` holds a dict of these by the field's name. Those of instances have one entry per instance; the others belong
to the whole image. Each method returns a new one and leaves the arrays of the old alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vertebra.data.transforms.moves import Move
from vertebra.errors import RecipeError
from vertebra.structures import Boxes, Keypoints, RotatedBoxes
from vertebra.structures.rotated_boxes import map_rotated

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BoxesDrawn", "Drawn", "PointsDrawn", "RotatedBoxesDrawn", "ScalarsDrawn", "Size"]

Size = tuple[int, int]


class Drawn:
    """Base: what neither moves nor ends at the border, such as a class or a weight."""

    of_instances: bool = True
    geometry: ClassVar[str]

    def moved(self, move: Move) -> Self:
        """Where `move` takes it. Raises RecipeError where that cannot be said."""
        return self

    def clipped(self, size: Size) -> Self:
        """Cut at the border of an image of (height, width)."""
        return self

    def select(self, rows: np.ndarray) -> Self:
        """Of instances: the entries of these row numbers."""
        return self

    def __len__(self) -> int:
        """Number of instances, or 1 of an image."""
        return 1

    @classmethod
    def joined(cls, values: Sequence[Self | None], counts: Sequence[int], size: Size) -> Self:
        """Those of several samples of one size as one, all instances one after the other.

        Args:
            values: of each sample; None where it has none.
            counts: number of instances of each.
        Raises:
            RecipeError: they cannot be joined.
        """
        raise RecipeError("it belongs to the whole image, and there is no rule for that of several images joined")

    def structure(self, size: Size) -> Any:
        """What a model gets of it, in an image of (height, width): a tensor or one of `vertebra.structures`."""
        raise NotImplementedError


@dataclass
class _ArrayDrawn(Drawn):
    """One row of an array (N, ...) per instance, or the only one, (1, ...), of the image."""

    values: np.ndarray
    of_instances: bool = True

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: np.ndarray) -> Self:
        return replace(self, values=self.values[rows])

    @classmethod
    def joined(cls, values: Sequence[Self | None], counts: Sequence[int], size: Size) -> Self:
        given = [value for value in values if value is not None]
        if not given[0].of_instances:
            return super().joined(values, counts, size)  # refuses
        if len(given) < len(values):
            raise RecipeError("some of the images to join do not have it")
        return replace(given[0], values=np.concatenate([each.values for each in given]))


class ScalarsDrawn(_ArrayDrawn):
    """A number (N,) or several (N, D) for each instance, or (1,) and (1, D) for the image. Moves leave them alone."""

    geometry = "scalar"

    def structure(self, size: Size) -> Tensor:
        """int64 or float32."""
        values = torch.from_numpy(self.values)
        return values.float() if values.is_floating_point() else values


class BoxesDrawn(_ArrayDrawn):
    """Upright boxes (N, 4) float64 xyxy in pixels; after a move the smallest ones around the moved."""

    geometry = "box"

    def moved(self, move: Move) -> Self:
        return replace(self, values=move.boxes(self.values))

    def clipped(self, size: Size) -> Self:
        height, width = size
        return replace(self, values=self.values.clip(min=0, max=[width, height, width, height]))

    def structure(self, size: Size) -> Boxes:
        return Boxes(torch.from_numpy(self.values).float())


class RotatedBoxesDrawn(_ArrayDrawn):
    """Rotated boxes (N, 5) float64: center x, center y, width, height in pixels, angle in degrees counterclockwise.

    Moved by Detectron2's rule, see `map_rotated`. Not cut at the border: what is left would not be a rotated box.
    """

    geometry = "rotated_box"

    def moved(self, move: Move) -> Self:
        if not np.isfinite(move.matrix).all() or (move.matrix[2, :2] != 0).any():
            raise RecipeError("a rotated box that is bent or seen in perspective is not a rotated box")
        matrix = torch.from_numpy(move.matrix / move.matrix[2, 2])
        moved = map_rotated(torch.from_numpy(self.values), matrix[:2, :2])
        moved[:, :2] += matrix[:2, 2]
        return replace(self, values=moved.numpy())

    def structure(self, size: Size) -> RotatedBoxes:
        return RotatedBoxes(torch.from_numpy(self.values).float())


@dataclass
class PointsDrawn(_ArrayDrawn):
    """K named points each (N, K, 3) float64: x, y in pixels, visibility 0 (not labeled), 1 (hidden), 2 (visible).

    Args:
        mirror: (K,) the point that stands in each place after mirroring: left and right change places. None: not known.
        unknown: what to say where it is needed and not known.
    """

    mirror: np.ndarray | None = None
    unknown: str = "set keypoint_names and keypoint_flip_map (pairs of names, or []) in the dataset's metadata"
    geometry = "points"

    def moved(self, move: Move) -> Self:
        """Detectron2 swaps the names for horizontal flips only, but a vertical mirror makes a left hand a right one
        just as well."""
        values = np.concatenate((move.points(self.values[..., :2]), self.values[..., 2:]), axis=-1)
        if _mirrors(move):
            if self.mirror is None:
                raise RecipeError(f"mirroring keypoints needs to know which of them are swapped; {self.unknown}")
            values = values[:, self.mirror]
        return replace(self, values=values)

    def clipped(self, size: Size) -> Self:
        """Points outside count as not labeled: a later padding must not bring them back."""
        x, y = self.values[..., 0], self.values[..., 1]
        outside = (x < 0) | (y < 0) | (x > size[1]) | (y > size[0])
        values = self.values.copy()
        values[outside, 2] = 0
        return replace(self, values=values)

    @classmethod
    def joined(cls, values: Sequence[Self | None], counts: Sequence[int], size: Size) -> Self:
        """Zeros, which is not labeled, where a sample has none."""
        first = next(value for value in values if value is not None)
        if not first.of_instances:
            return super().joined(values, counts, size)
        shape = max(value.values.shape[1:] for value in values if value is not None)
        filled = [
            replace(first, values=np.zeros((count, *shape))) if value is None else value
            for value, count in zip(values, counts, strict=True)
        ]
        return super().joined(filled, counts, size)

    def structure(self, size: Size) -> Keypoints:
        """Those outside the image or not labeled are 0, 0, 0."""
        labeled = self.clipped(size).values[..., 2:] > 0
        return Keypoints(torch.from_numpy(np.where(labeled, self.values, 0.0)).float())


def _mirrors(move: Move) -> bool:
    (a, b), (c, d) = move.matrix[:2, :2]
    return bool(a * d - b * c < 0)  # not where it is bent (NaN)
