"""`BitMasks`: the masks of one image as pixels. Detectron2's meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.structures.boxes import Boxes
from vertebra.structures.polygon_masks import PolygonMasks
from vertebra.structures.rle import polygons_to_bitmask

__all__ = ["BitMasks"]


class BitMasks:
    """Masks of N objects in one image.

    Args:
        tensor: (N, H, W), converted to bool. H and W are the image's.
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.ndim != 3:
            raise ValueError(f"BitMasks takes masks (N, H, W), got shape {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.tensor.shape[1], self.tensor.shape[2]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | Sequence[Sequence[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Draws polygons, each object's as one mask, as COCO's own tools do."""
        polygons = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        if len(polygons) == 0:
            return BitMasks(torch.zeros(0, height, width, dtype=torch.bool))
        return BitMasks(np.stack([polygons_to_bitmask(shape, height, width) for shape in polygons]))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """The masks of several `BitMasks` of one image size in one."""
        for masks in bitmasks_list:
            if not isinstance(masks, BitMasks):
                raise ValueError(f"BitMasks.cat takes a list of BitMasks, found {type(masks).__name__} in it")
        if len(bitmasks_list) == 0:
            raise ValueError("BitMasks.cat got an empty list; it needs at least one BitMasks")
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    def area(self) -> Tensor:
        """(N,) int64, in pixels."""
        return self.tensor.flatten(1).sum(dim=1)

    def nonempty(self) -> Tensor:
        """(N,) bool: the mask has a pixel."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """The smallest box around each mask, end exclusive; all zeros for an empty mask."""
        x0, x1 = _first_and_end(self.tensor.any(dim=1))  # (N, W)
        y0, y1 = _first_and_end(self.tensor.any(dim=2))  # (N, H)
        return Boxes(torch.stack((x0, y0, x1, y1), dim=1))

    def crop_and_resize(self, boxes: Tensor, mask_size: int, rows: Tensor | None = None) -> Tensor:
        """What of mask i lies in box i, at a common size; the training target of mask heads.

        Pixels average over where they come from (ROIAlign, adaptive number of samples) and count from one half.

        Args:
            boxes: (B, 4) `xyxy`.
            rows: (B,) int64, which mask each box looks at. None: one box for each mask, in their order.
        Returns:
            (B, mask_size, mask_size) bool, on the device of the boxes.
        """
        if rows is None:
            rows = torch.arange(len(self), device=boxes.device)
        if len(boxes) != len(rows):
            raise ValueError(f"BitMasks.crop_and_resize needs a box for each mask, got {len(boxes)} and {len(rows)}")
        from torchvision import ops  # loads slowly, and only mask heads in training come here

        used, index = rows.to(self.device).unique(return_inverse=True)  # several boxes may share one large mask
        rois = torch.cat((index[:, None].to(boxes.device, torch.float32), boxes.float()), dim=1)  # (B, 5)
        masks = self.tensor[used].to(device=boxes.device, dtype=torch.float32)[:, None]  # (used, 1, H, W)
        crops = ops.roi_align(masks, rois, (mask_size, mask_size), sampling_ratio=0, aligned=True)
        return crops[:, 0] >= 0.5

    def to_cells(self, stride: int, size: tuple[int, int]) -> Tensor:
        """The masks on a coarser grid that begins at the image's upper left corner: the target of whole-image masks.

        Args:
            stride: pixels per cell.
            size: (rows, columns) of the grid; it may reach over the image.
        Returns:
            (N, rows, columns) bool: at least half of the cell belongs to the object.
        """
        rows, columns = size
        height, width = self.image_size
        edges = (0, columns * stride - width, 0, rows * stride - height)  # below 0: the grid ends inside the image
        pixels = F.pad(self.tensor, edges).reshape(len(self), rows, stride, columns, stride)
        return pixels.sum(dim=(2, 4)) * 2 >= stride**2

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        """`masks[i]` is a `BitMasks` of one mask; slices, bool masks and index tensors select objects."""
        if isinstance(item, int):
            return BitMasks(self.tensor[item][None])
        chosen = self.tensor[item]
        if chosen.ndim != 3:
            raise IndexError(f"BitMasks[{item}] selects no masks: it gives shape {tuple(chosen.shape)}")
        return BitMasks(chosen)

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (H, W) at a time."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"


def _first_and_end(present: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) bool -> index of the first true and one past the last, both (N,), 0 where there is none."""
    length = present.shape[1]
    positions = torch.arange(length, device=present.device)
    end = torch.where(present, positions + 1, 0).amax(dim=1)
    first = torch.where(present, positions, length).amin(dim=1)
    return torch.minimum(first, end), end
