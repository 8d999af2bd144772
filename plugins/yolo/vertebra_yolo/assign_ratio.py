"""Which anchors learn which object, by the ratio of their sides: YOLOv5's rule, all images at once.

An anchor of a level takes an object if neither side differs by more than the factor `max_ratio`. The object goes to the
cell that holds its center and to the two neighbors that the center is nearest to, across and down.
Source: the rule as published with YOLOv5 (anchor_t 4.0, offset 0.5).
Letters: N images, M objects in the fullest image, L levels, A anchors a level, P pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RatioPairs", "match_by_ratio"]

_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))  # own cell, left, up, right, down: x, y


class RatioPairs(NamedTuple):
    """P pairs of an anchor in a cell and an object, sorted by level; all (P,) int64."""

    level: Tensor
    image: Tensor
    object: Tensor
    """Row of the ground truth."""
    anchor: Tensor
    """In [0, A)."""
    x: Tensor
    """Column of the cell."""
    y: Tensor
    """Row of the cell."""


def match_by_ratio(
    boxes: Tensor,
    valid: Tensor,
    anchors: Tensor,
    strides: Tensor,
    sizes: Tensor,
    *,
    max_ratio: float = 4.0,
    offset: float = 0.5,
) -> RatioPairs:
    """All pairs. One wait for the device (the number of pairs), no loop over images, objects or levels.

    Args:
        boxes: (N, M, 4) xyxy, input pixels.
        valid: (N, M) bool.
        anchors: (L, A, 2) width and height in pixels.
        strides: (L,) pixels per cell.
        sizes: (L, 2) columns and rows of each level.
        max_ratio: largest quotient of a side of the object and of the anchor, either way.
        offset: a center within this part of its cell's edge also goes to the cell beyond; 0: to its own cell alone.
    """
    size = boxes[..., 2:] - boxes[..., :2]  # (N, M, 2)
    ratio = size[None, :, :, None] / anchors[:, None, None]  # (L, N, M, A, 2)
    fits = torch.maximum(ratio, 1 / ratio.clamp(min=1e-9)).amax(dim=-1) < max_ratio  # (L, N, M, A)
    center = (boxes[..., :2] + boxes[..., 2:])[None] / 2 / strides.view(-1, 1, 1, 1)  # (L, N, M, 2), cells
    limit = sizes.view(-1, 1, 1, 2).to(center)
    cell = torch.minimum(center.floor().clamp(min=0), limit - 1)
    inside = center - cell  # (L, N, M, 2) in [0, 1]
    low = (inside < offset) & (cell > 0)
    high = (inside > 1 - offset) & (cell < limit - 1)
    own = torch.ones_like(low[..., :1])
    reached = torch.cat((own, low, high), dim=-1)  # (L, N, M, 5), in the order of _STEPS
    wanted = fits[..., None] & reached[..., None, :] & valid[None, :, :, None, None]  # (L, N, M, A, 5)
    level, image, row, anchor, step = wanted.nonzero(as_tuple=True)  # (P,) each; the wait
    place = cell[level, image, row].long() + torch.tensor(_STEPS, device=boxes.device)[step]  # (P, 2)
    return RatioPairs(level, image, row, anchor, place[:, 0], place[:, 1])
