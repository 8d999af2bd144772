"""IoU of rotated boxes: the exact area of the convex polygon in which two of them overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from vertebra.structures.rotated_boxes import RotatedBoxes, corners_of

__all__ = ["matched_rotated_iou", "pairwise_iou_rotated"]

_AT_ONCE = 1 << 15  # pairs; their 24 candidate corners and what is made of them take about 100 MB
_ON_EDGE = 1e-12  # of the longest side: corners as close to an edge count as inside
_PARALLEL = 1e-9  # sine of the angle between edges that are not crossed: their corners say where they meet


def pairwise_iou_rotated(boxes1: RotatedBoxes, boxes2: RotatedBoxes) -> Tensor:
    """(N, M) float32 intersection over union of all pairs, 0 where both have no area. Computed in float64.

    Only pairs whose upright boxes overlap are looked at closely.
    """
    first, second = boxes1.tensor.double(), boxes2.tensor.double()
    low1, high1 = _around(first)
    low2, high2 = _around(second)
    meet = (low1[:, None] < high2).all(dim=2) & (low2 < high1[:, None]).all(dim=2)
    rows, columns = meet.nonzero(as_tuple=True)
    result = torch.zeros(len(first), len(second), device=first.device)
    result[rows, columns] = matched_rotated_iou(first[rows], second[columns])
    return result


def matched_rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """(P, 5) and (P, 5) rotated boxes to the IoU (P,) float32 of each with the one in the same row."""
    pieces = zip(first.split(_AT_ONCE), second.split(_AT_ONCE), strict=True)
    return torch.cat([_iou(one.double(), other.double()) for one, other in pieces])


def _iou(first: Tensor, second: Tensor) -> Tensor:
    areas = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    # About the first box's center and in units of the sides, so that the tolerance means the same everywhere.
    unit = torch.cat((first[:, 2:4], second[:, 2:4]), dim=1).amax(dim=1).clamp(min=1e-300)[:, None]
    shift = first[:, :2]
    first, second = (
        torch.cat(((box[:, :2] - shift) / unit, box[:, 2:4] / unit, box[:, 4:]), dim=1) for box in (first, second)
    )
    common = _overlap(corners_of(first), corners_of(second)) * unit[:, 0] ** 2
    common = torch.minimum(common, torch.minimum(*areas))
    union = areas[0] + areas[1] - common
    return torch.where(union > 0, common / union.clamp(min=1e-300), 0).float()


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """(P, 4, 2) corners each to the area (P,) that both cover.

    Its corners are among the corners of either that lie in the other and the points where edges cross. Ordered by angle
    about their mean they make the convex polygon; corners found twice add nothing to its area.
    """
    crossings, cross = _crossings(first, second)
    points = torch.cat((first, second, crossings), dim=1)  # (P, 24, 2)
    valid = torch.cat((_inside(first, second), _inside(second, first), cross), dim=1)
    count = valid.sum(dim=1)
    middle = (points * valid[..., None]).sum(dim=1) / count.clamp(min=1)[:, None]
    offsets = torch.where(valid[..., None], points - middle[:, None], 0.0)
    angle = torch.where(valid, torch.atan2(offsets[..., 1], offsets[..., 0]), torch.inf)
    order = angle.argsort(dim=1)
    ring = offsets.gather(1, order[..., None].expand_as(offsets))
    last = torch.arange(points.shape[1], device=points.device) >= count[:, None]
    ring = torch.where(last[..., None], ring[:, :1], ring)  # what is not valid repeats the first: no area
    following = ring.roll(-1, dims=1)
    area = (ring[..., 0] * following[..., 1] - ring[..., 1] * following[..., 0]).sum(dim=1) / 2
    return torch.where(count > 2, area, 0.0).clamp(min=0)


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """(P, 4) bool: which of the points (P, 4, 2) lie in the box with these corners (P, 4, 2), its border included."""
    origin = corners[:, :1]
    inside = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    for other in (1, 3):
        side = corners[:, other : other + 1] - origin  # (P, 1, 2)
        length = side.norm(dim=-1).clamp(min=1e-300)
        along = ((points - origin) * side).sum(dim=-1) / length
        inside &= (along >= -_ON_EDGE) & (along <= length + _ON_EDGE)
    return inside


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Where each edge of one crosses each of the other: points (P, 16, 2), and which of them exist (P, 16)."""
    start1, start2 = first[:, :, None], second[:, None]
    edge1, edge2 = first.roll(-1, dims=1)[:, :, None] - start1, second.roll(-1, dims=1)[:, None] - start2
    between = start2 - start1
    spread = edge1[..., 0] * edge2[..., 1] - edge1[..., 1] * edge2[..., 0]
    safe = torch.where(spread == 0, 1.0, spread)
    place1 = (between[..., 0] * edge2[..., 1] - between[..., 1] * edge2[..., 0]) / safe
    place2 = (between[..., 0] * edge1[..., 1] - between[..., 1] * edge1[..., 0]) / safe
    parallel = spread.abs() <= _PARALLEL * edge1.norm(dim=-1) * edge2.norm(dim=-1)
    cross = ~parallel & (place1 >= 0) & (place1 <= 1) & (place2 >= 0) & (place2 <= 1)
    points = start1 + place1[..., None] * edge1
    return points.flatten(1, 2), cross.flatten(1, 2)


def _around(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The corners (N, 2) of the upright boxes around rotated ones."""
    corners = corners_of(boxes)
    return corners.amin(dim=1), corners.amax(dim=1)
