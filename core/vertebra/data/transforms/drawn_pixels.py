"""What is drawn on an image as pixels: masks, dense maps, further images. See `vertebra.data.transforms.drawn`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vertebra.data.masks import decode_segmentation
from vertebra.data.transforms.drawn import Drawn, Size
from vertebra.data.transforms.moves import Move
from vertebra.errors import RecipeError
from vertebra.structures import BitMasks, DenseMap, PolygonMasks
from vertebra_eval.masks import clip_polygon

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DenseMapDrawn", "ImageDrawn", "MasksDrawn"]


@dataclass
class MasksDrawn(Drawn):
    """Masks, as polygons or as pixels, not both.

    Args:
        polygons: N lists of polygons (P, 2) float64, x and y in pixels.
        bitmasks: (N, H, W) uint8, 0 and 1.
    """

    polygons: list[list[np.ndarray]] | None = None
    bitmasks: Tensor | None = None
    of_instances: bool = True
    geometry: ClassVar[str] = "mask"

    def moved(self, move: Move) -> Self:
        if self.bitmasks is not None:
            return replace(self, bitmasks=move.pixels(self.bitmasks, 0, False))
        assert self.polygons is not None
        return replace(self, polygons=[[move.outline(polygon) for polygon in item] for item in self.polygons])

    def clipped(self, size: Size) -> Self:
        if self.polygons is None:
            return self
        height, width = size
        cut = [[clip_polygon(polygon, width, height) for polygon in item] for item in self.polygons]
        return replace(self, polygons=[[polygon for polygon in item if len(polygon)] for item in cut])

    def select(self, rows: np.ndarray) -> Self:
        if self.bitmasks is not None:
            return replace(self, bitmasks=self.bitmasks[torch.from_numpy(rows)])
        assert self.polygons is not None
        return replace(self, polygons=[self.polygons[row] for row in rows])

    def __len__(self) -> int:
        return len(self.bitmasks if self.bitmasks is not None else self.polygons or ())

    def drawn(self, size: Size) -> Tensor:
        """(N, H, W) uint8."""
        if self.bitmasks is not None:
            return self.bitmasks
        assert self.polygons is not None
        masks = np.zeros((len(self.polygons), *size), np.uint8)
        for slot, polygons in zip(masks, self.polygons, strict=True):
            slot[:] = decode_segmentation([polygon.reshape(-1) for polygon in polygons], *size)
        return torch.from_numpy(masks)

    def empty(self) -> np.ndarray:
        """(N,) bool."""
        if self.bitmasks is not None:
            return (self.bitmasks.flatten(1).amax(dim=1) == 0).numpy()
        assert self.polygons is not None
        return np.array([not polygons for polygons in self.polygons], bool)

    @classmethod
    def joined(cls, values: Sequence[Self | None], counts: Sequence[int], size: Size) -> Self:
        """Polygons if all samples have polygons; an instance without a mask gets an empty one."""
        first = next(value for value in values if value is not None)
        if not first.of_instances:
            return super().joined(values, counts, size)
        all_of = [
            cls([[] for _ in range(count)]) if value is None else value
            for value, count in zip(values, counts, strict=True)
        ]
        if any(value.bitmasks is not None for value in all_of):
            return replace(first, polygons=None, bitmasks=torch.cat([value.drawn(size) for value in all_of]))
        return replace(first, polygons=[item for value in all_of for item in value.polygons or ()])

    def structure(self, size: Size) -> PolygonMasks | BitMasks:
        if self.bitmasks is not None:
            return BitMasks(self.bitmasks.view(torch.bool))
        assert self.polygons is not None
        return PolygonMasks([[polygon.reshape(-1) for polygon in item] for item in self.polygons])


@dataclass
class DenseMapDrawn(Drawn):
    """One value, or several, per pixel: labels, depth, ... Of the whole image.

    Args:
        values: (H, W) or (C, H, W) uint8, int32 or float32. Its values stay what they are, wherever they come to lie.
        fill: value where padding adds pixels: no label, not known.
        smooth: interpolate between pixels where the image is resized; for float32 alone.
        labels: values are classes: joined images keep those of the pixels that are seen.
    """

    values: Tensor
    fill: float = 255.0
    smooth: bool = False
    labels: bool = True
    of_instances: bool = False
    geometry: ClassVar[str] = "dense_map"

    def moved(self, move: Move) -> Self:
        flat = self.values.dim() == 2
        moved = move.pixels(self.values[None] if flat else self.values, self.fill, self.smooth)
        return replace(self, values=moved[0] if flat else moved)

    def fitting(self, other: DenseMapDrawn) -> Self:
        """In a type that holds the values of both. Raises RecipeError where they differ in channels."""
        if self.values.shape[:-2] != other.values.shape[:-2]:
            raise RecipeError(f"it has {list(self.values.shape[:-2])} and {list(other.values.shape[:-2])} channels")
        return replace(self, values=self.values.to(torch.promote_types(self.values.dtype, other.values.dtype)))

    def blank(self, size: Size) -> Self:
        """The same of an image of (height, width), of `fill` alone."""
        return replace(self, values=self.values.new_full((*self.values.shape[:-2], *size), self.fill))

    def laid_on(self, canvas: Self, top: int, left: int) -> None:
        """Writes these values into a larger map; its corner comes to (top, left)."""
        height, width = self.values.shape[-2:]
        canvas.values[..., top : top + height, left : left + width] = self.values

    def structure(self, size: Size) -> Any:
        return DenseMap(self.values, self.fill, self.smooth)


@dataclass
class ImageDrawn(DenseMapDrawn):
    """A further image (C, H, W) uint8, int32 or float32. Pixels that padding adds get the gray of the first image's.

    Args:
        highest: the value of white.
    """

    smooth: bool = True
    labels: bool = False
    highest: float = 255.0
    geometry: ClassVar[str] = "image"

    def structure(self, size: Size) -> Tensor:
        return self.values
