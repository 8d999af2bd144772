"""`PolygonMasks`: the masks of one image as polygons. Detectron2's meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertebra.structures.boxes import Boxes
from vertebra.structures.rle import polygons_to_bitmask

__all__ = ["PolygonMasks"]

Polygons = list[np.ndarray]
"""One object: the polygons whose union it is, each flat: x0, y0, x1, y1, ... in pixels."""


class PolygonMasks:
    """Masks of N objects in one image. They stay in CPU memory: `to` returns the same object.

    Args:
        polygons: per object a list of polygons, each a flat array or list x0, y0, x1, y1, ... of 3 points or more.

    Attributes:
        polygons: per object a list of float64 arrays (2 * points,).
    """

    def __init__(self, polygons: Sequence[Sequence[np.ndarray | Tensor | Sequence[float]]]) -> None:
        if not isinstance(polygons, (list, tuple)):
            raise ValueError(f"PolygonMasks takes a list of objects, got {type(polygons).__name__}")
        self.polygons: list[Polygons] = [_as_polygons(shape, index) for index, shape in enumerate(polygons)]

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """The objects of several `PolygonMasks` in one."""
        for masks in polymasks_list:
            if not isinstance(masks, PolygonMasks):
                raise ValueError(f"PolygonMasks.cat takes a list of PolygonMasks, found {type(masks).__name__} in it")
        return PolygonMasks([shape for masks in polymasks_list for shape in masks.polygons])

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def area(self) -> Tensor:
        """(N,) float64, in square pixels: the sum over an object's polygons, overlaps counted twice.

        Differs from the pixel count of the drawn mask by about the outline's length.
        """
        areas = [sum(_polygon_area(polygon) for polygon in shape) for shape in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    def nonempty(self) -> Tensor:
        """(N,) bool: the object has a polygon."""
        return torch.tensor([len(shape) > 0 for shape in self.polygons], dtype=torch.bool)

    def get_bounding_boxes(self) -> Boxes:
        """The smallest box around all of an object's polygons; all zeros for an object without any."""
        boxes = torch.zeros(len(self), 4)
        for box, shape in zip(boxes, self.polygons, strict=True):
            if shape:
                points = torch.from_numpy(np.concatenate(shape)).view(-1, 2)
                box[:2], box[2:] = points.amin(dim=0), points.amax(dim=0)
        return Boxes(boxes)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """What of object i lies in box i, drawn at a common size; the training target of mask heads.

        Args:
            boxes: (N, 4) `xyxy`, one for each object.
        Returns:
            (N, mask_size, mask_size) bool, on the device of the boxes.
        """
        if len(boxes) != len(self):
            raise ValueError(
                f"PolygonMasks.crop_and_resize needs a box for each object, got {len(boxes)} and {len(self)}"
            )
        if len(self) == 0:
            return torch.zeros(0, mask_size, mask_size, dtype=torch.bool, device=boxes.device)
        corners = boxes.detach().cpu().double().numpy()
        crops = [_draw_in_box(shape, box, mask_size) for shape, box in zip(self.polygons, corners, strict=True)]
        return torch.from_numpy(np.stack(crops)).to(boxes.device)

    def to_cells(self, stride: int, size: tuple[int, int]) -> Tensor:
        """The objects drawn on a coarser grid that begins at the image's upper left corner: as `BitMasks.to_cells`.

        Args:
            stride: pixels per cell.
            size: (rows, columns) of the grid.
        Returns:
            (N, rows, columns) bool, on the CPU.
        """
        drawn = np.zeros((len(self), *size), dtype=bool)
        for cells, shape in zip(drawn, self.polygons, strict=True):
            cells[:] = polygons_to_bitmask([polygon / stride for polygon in shape], *size)
        return torch.from_numpy(drawn)

    def __getitem__(self, item: int | slice | Sequence[int] | Tensor | np.ndarray) -> PolygonMasks:
        """`masks[i]` is a `PolygonMasks` of one object; slices, lists, bool masks and index tensors select objects."""
        if isinstance(item, (int, np.integer)):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        index = torch.as_tensor(item).cpu()
        if index.numel() == 0 and index.dtype != torch.bool:
            return PolygonMasks([])
        if index.ndim != 1 or index.is_floating_point():
            raise IndexError(f"PolygonMasks takes indices or a bool mask (N,), got {index.dtype} {tuple(index.shape)}")
        return PolygonMasks([self.polygons[i] for i in torch.arange(len(self))[index].tolist()])

    def __iter__(self) -> Iterator[Polygons]:
        """One object's list of polygons at a time."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _as_polygons(shape: Sequence[np.ndarray | Tensor | Sequence[float]], index: int) -> Polygons:
    if not isinstance(shape, (list, tuple)):
        raise ValueError(
            f"PolygonMasks: object {index} is a {type(shape).__name__}, must be a list of polygons"
            " (also where it has just one)"
        )
    polygons = []
    for polygon in shape:
        if isinstance(polygon, Tensor):
            polygon = polygon.cpu().numpy()
        points = np.asarray(polygon, dtype=np.float64).ravel()
        if len(points) % 2 or len(points) < 6:
            raise ValueError(
                f"PolygonMasks: object {index} has a polygon of {len(points)} numbers, must be x, y pairs, 3 or more"
            )
        polygons.append(points)
    return polygons


def _polygon_area(polygon: np.ndarray) -> float:
    """The shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _draw_in_box(shape: Polygons, box: np.ndarray, mask_size: int) -> np.ndarray:
    """The part of an object that lies in `box` (4,) `xyxy`, drawn as (mask_size, mask_size) bool."""
    corner, size = box[:2], np.maximum(box[2:] - box[:2], 0.1)  # a box of no size would scale without bounds
    scale = mask_size / size
    drawn = [((polygon.reshape(-1, 2) - corner) * scale).ravel() for polygon in shape]
    return polygons_to_bitmask(drawn, mask_size, mask_size)
