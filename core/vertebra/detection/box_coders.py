"""Box coders: a box as the deltas from another one (what a network regresses), and back.

Sources: center and log size, Girshick et al., "R-CNN", arXiv:1311.2524, appendix C; distances to the four edges,
Tian et al., "FCOS", arXiv:1904.01355. Weights, clamp and rounding as in Detectron2.
All leading dimensions broadcast: deltas (N, R, 4) go with anchors (R, 4).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Box2BoxTransform", "Box2BoxTransformLinear"]

DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)
"""A box grows at most from 16 to 1000 pixels in one step; more would overflow early in a training."""


class Box2BoxTransform:
    """Deltas (dx, dy, dw, dh): shift of the center in parts of the source's size, and log of the ratio of sizes.

    Args:
        weights: what dx, dy, dw and dh are multiplied with, to bring their spread near 1.
        scale_clamp: largest log ratio that `apply_deltas` uses.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(
        self,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        scale_clamp: float = DEFAULT_SCALE_CLAMP,
    ) -> None:
        if len(weights) != 4 or any(weight <= 0 for weight in weights):
            raise ValueError(f"Box2BoxTransform: weights are {weights}, must be four numbers above 0: dx, dy, dw, dh")
        self.weights = tuple(float(weight) for weight in weights)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (..., 4) that lead from the source boxes to the targets.

        Args:
            src_boxes: (..., 4) `xyxy`, of sizes above 0, else the deltas are not finite.
            target_boxes: (..., 4) `xyxy`, of sizes above 0, else dw and dh are not finite.
        """
        x, y, width, height = _center_and_size(src_boxes)
        target_x, target_y, target_width, target_height = _center_and_size(target_boxes)
        wx, wy, ww, wh = self.weights
        dx = wx * (target_x - x) / width
        dy = wy * (target_y - y) / height
        dw = ww * torch.log(target_width / width)
        dh = wh * torch.log(target_height / height)
        return torch.stack((dx, dy, dw, dh), dim=-1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes `xyxy` (..., k * 4), float32, not clipped to any image.

        Args:
            deltas: (..., k * 4): k predictions per box, for example one per class.
            boxes: (..., 4) `xyxy`, what the deltas start from.
        """
        deltas = deltas.float()  # 16 bits are too few for coordinates
        x, y, width, height = (value[..., None] for value in _center_and_size(boxes.float()))  # (..., 1)
        wx, wy, ww, wh = self.weights
        dx = deltas[..., 0::4] / wx  # (..., k)
        dy = deltas[..., 1::4] / wy
        dw = (deltas[..., 2::4] / ww).clamp(max=self.scale_clamp)
        dh = (deltas[..., 3::4] / wh).clamp(max=self.scale_clamp)
        center_x, center_y = dx * width + x, dy * height + y
        half_width, half_height = 0.5 * (dw.exp() * width), 0.5 * (dh.exp() * height)
        corners = (center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height)
        return torch.stack(corners, dim=-1).flatten(-2)  # (..., k, 4) -> (..., k * 4)

    def __repr__(self) -> str:
        return f"Box2BoxTransform(weights={self.weights}, scale_clamp={self.scale_clamp:.4f})"


class Box2BoxTransformLinear:
    """Deltas (left, top, right, bottom): distances from the source's center to the edges of the target.

    Args:
        normalize_by_size: distances are in parts of the source's width and height; otherwise in pixels.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(self, normalize_by_size: bool = True) -> None:
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Distances (..., 4), negative where the center lies beyond that edge of the target.

        Args:
            src_boxes: (..., 4) `xyxy`; of sizes above 0 if normalized.
            target_boxes: (..., 4) `xyxy`.
        """
        center = (src_boxes[..., :2] + src_boxes[..., 2:]) / 2
        deltas = torch.cat((center - target_boxes[..., :2], target_boxes[..., 2:] - center), dim=-1)
        return deltas / _sizes_twice(src_boxes) if self.normalize_by_size else deltas

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes `xyxy` (..., 4), float32; negative distances count as 0, so every box holds its source's center.

        Args:
            deltas: (..., 4) distances.
            boxes: (..., 4) `xyxy`, whose centers the distances start from.
        """
        deltas, boxes = deltas.float().clamp(min=0), boxes.float()
        if self.normalize_by_size:
            deltas = deltas * _sizes_twice(boxes)
        center = (boxes[..., :2] + boxes[..., 2:]) / 2
        return torch.cat((center - deltas[..., :2], center + deltas[..., 2:]), dim=-1)

    def __repr__(self) -> str:
        return f"Box2BoxTransformLinear(normalize_by_size={self.normalize_by_size})"


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x0, y0, x1, y1 = boxes.unbind(dim=-1)
    width, height = x1 - x0, y1 - y0
    return x0 + 0.5 * width, y0 + 0.5 * height, width, height


def _sizes_twice(boxes: Tensor) -> Tensor:
    """(..., 4): width, height, width, height."""
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.cat((size, size), dim=-1)
