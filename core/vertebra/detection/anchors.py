"""Anchors: boxes of set sizes and shapes around every cell of every feature map.

Source: Ren et al., "Faster R-CNN", arXiv:1506.01497, section 3.1.1; sizes are square roots of areas, and the
order of anchors (rows, columns, sizes, ratios) and their rounding are Detectron2's, so that its weights fit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["AnchorGenerator"]

MAX_CACHED_GRIDS = 16
"""Remembered sets of anchors, one per input size; at 800 x 1333 pixels one set takes about 3 MB."""


class AnchorGenerator(nn.Module):
    """The anchors of feature maps, level by level.

    It has no parameters and no buffers: nothing of it is in a state dict, and `model.half()` leaves anchors
    float32. Anchors of the last few input sizes are remembered, so that a repeated call costs nothing.

    Args:
        sizes: per level, square roots of anchor areas, in input pixels. One entry serves all levels.
        aspect_ratios: per level, height / width. One entry serves all levels.
        strides: per level, input pixels per cell.
        offset: where in its cell an anchor's center lies, in cells: 0 its top left corner, 0.5 its middle.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(
        self,
        sizes: list[list[float]],
        aspect_ratios: list[list[float]],
        strides: list[int],
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        if not strides:
            raise ValueError("AnchorGenerator needs at least one level in strides, got none")
        if not 0 <= offset < 1:
            raise ValueError(f"AnchorGenerator: offset is {offset}, must be in [0, 1) (it is measured in cells)")
        self.strides = list(strides)
        self.offset = offset
        sizes = _per_level("sizes", sizes, len(strides))
        aspect_ratios = _per_level("aspect_ratios", aspect_ratios, len(strides))
        self._cells = [_cell_anchors(s, r) for s, r in zip(sizes, aspect_ratios, strict=True)]
        self._cache: OrderedDict[Any, list[Tensor]] = OrderedDict()

    @property
    def num_anchors(self) -> list[int]:
        """Anchors per cell, for each level."""
        return [len(cell) for cell in self._cells]

    def same_number(self, who: str, levels: Sequence[str]) -> int:
        """Anchors per cell, the same on each of these levels, as a part needs them that its levels share.

        Raises:
            ValueError: they differ, or the generator is for another number of levels; starts with `who`.
        """
        numbers = self.num_anchors
        if len(numbers) != len(levels) or len(set(numbers)) != 1:
            raise ValueError(
                f"{who}: the anchor generator makes {numbers} anchors per cell, one number per level; expected the "
                f"same number for each of the levels {', '.join(levels)}"
            )
        return numbers[0]

    @property
    def cell_anchors(self) -> list[Tensor]:
        """Per level, the anchors (A, 4) of a cell whose center is at (0, 0), `xyxy` in input pixels."""
        return [torch.tensor(cell, dtype=torch.float32) for cell in self._cells]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The anchors of each level; remembered tensors, so do not change them in place.

        Args:
            features: per level (N, C, H, W), of which only H, W and the device matter.
        Returns:
            Per level (H * W * A, 4) float32, `xyxy` in input pixels, not clipped; anchor a of cell (y, x) is
            row (y * W + x) * A + a.
        """
        if len(features) != len(self._cells):
            raise ValueError(
                f"AnchorGenerator was made for {len(self._cells)} levels (strides {self.strides}),"
                f" got {len(features)} feature maps"
            )
        sizes = [feature.shape[-2:] for feature in features]
        device = features[0].device
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._all_levels(sizes, device)  # sizes may be symbols here: nothing to look up, nothing to keep
        key = (device, *(tuple(size) for size in sizes))
        anchors = self._cache.get(key)
        if anchors is None:
            with torch.inference_mode(False):  # else a training after an evaluation could not use them
                anchors = self._all_levels(sizes, device)
            if type(anchors[0]) is Tensor:  # not a stand-in of a tracer
                self._cache[key] = anchors
                while len(self._cache) > MAX_CACHED_GRIDS:
                    self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return list(anchors)

    def _all_levels(self, sizes: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        levels = zip(self._cells, sizes, self.strides, strict=True)
        return [_grid_anchors(cell, h, w, stride, self.offset, device) for cell, (h, w), stride in levels]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}  # copies and pickles leave the remembered anchors behind

    def extra_repr(self) -> str:
        return f"num_anchors={self.num_anchors}, strides={self.strides}, offset={self.offset}"


def _cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> list[tuple[float, ...]]:
    """All sizes in all shapes around (0, 0), sizes outermost; a size's square is the area of all its shapes."""
    anchors: list[tuple[float, ...]] = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    return anchors


def _grid_anchors(
    cell: list[tuple[float, ...]], height: int, width: int, stride: int, offset: float, device: torch.device
) -> Tensor:
    xs = (torch.arange(width, dtype=torch.float32, device=device) + offset) * stride
    ys = (torch.arange(height, dtype=torch.float32, device=device) + offset) * stride
    y, x = torch.meshgrid(ys, xs, indexing="ij")  # (H, W) each
    shifts = torch.stack((x, y, x, y), dim=-1)  # (H, W, 4)
    anchors = shifts[:, :, None] + torch.tensor(cell, dtype=torch.float32, device=device)  # (H, W, A, 4)
    return anchors.reshape(-1, 4)


def _per_level(name: str, values: Sequence[Sequence[float]], num_levels: int) -> list[list[float]]:
    if not values or not all(isinstance(level, (list, tuple)) and level for level in values):
        raise ValueError(f"AnchorGenerator: {name} is {values!r}, must be a list of non-empty lists, one per level")
    if any(value <= 0 for level in values for value in level):
        raise ValueError(f"AnchorGenerator: {name} is {values!r}, all must be more than 0")
    if len(values) == 1:
        return [list(values[0])] * num_levels
    if len(values) != num_levels:
        raise ValueError(f"AnchorGenerator: {name} has {len(values)} levels, strides {num_levels}; give 1 or as many")
    return [list(level) for level in values]
