"""Boxes from anchors on cells, and which is responsible for which ground-truth box: for YOLOv2 and YOLOv3.

Sources: Redmon & Farhadi, "YOLO9000", arXiv:1612.08242, section 2, "Direct location prediction";
"YOLOv3", arXiv:1804.02767, section 2.1.
A row is one anchor of one cell of one level. Letters: N images, M ground-truth boxes in the fullest image, L levels,
A_l anchors and H_l x W_l cells on level l, A anchors and R rows over all levels, P pairs of a row and a ground-truth
box.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.structures import pairwise_iou

__all__ = ["Grid", "Pairs", "decode_boxes", "encode_boxes", "pair_by_shape", "real_boxes", "regression_loss"]

MAX_OVERLAPS = {"cpu": 2**20}  # held at a time: there as many as a cache takes
MAX_OVERLAPS_ELSEWHERE = 2**25
MAX_LOG_SCALE = math.log(1000.0)  # no box is more than 1000 times as wide or high as its anchor


class Grid(NamedTuple):
    """What is known of every anchor of a cell; (A,) int64 each, level by level, finest first."""

    strides: Tensor
    widths: Tensor
    """Cells in a row of the anchor's level."""
    heights: Tensor
    """Cells in a column of it."""
    first: Tensor
    """Row of the anchor in the level's first cell."""
    counts: Tensor
    """Anchors a cell on its level: the step from one cell to the next."""

    @staticmethod
    def of(
        sizes: Sequence[tuple[int, int]], strides: Sequence[int], counts: Sequence[int], device: torch.device
    ) -> "Grid":
        """From each level's (H_l, W_l), stride and A_l."""
        columns = []
        start = 0
        for (height, width), stride, count in zip(sizes, strides, counts, strict=True):
            columns += [(stride, width, height, start + local, count) for local in range(count)]
            start += height * width * count
        return Grid(*torch.tensor(columns, dtype=torch.int64).to(device, non_blocking=True).unbind(dim=1))


class Pairs(NamedTuple):
    """P rows that are responsible for a ground-truth box, with their images; (P,) int64 each."""

    image: Tensor
    truth: Tensor
    row: Tensor


def cell_rows(sizes: Sequence[tuple[int, int]], strides: Sequence[int], anchors: Sequence[Tensor]) -> Tensor:
    """(R, 5): x and y of the cell's top left corner, stride, anchor's width and height, all in input pixels.

    Args:
        sizes: (H_l, W_l) of each level.
        anchors: (A_l, 2) width and height of each level, in input pixels.
    Returns:
        Anchor a of cell (y, x) of a level is row (y * W_l + x) * A_l + a of that level's part.
    """
    parts = []
    for (height, width), stride, shapes in zip(sizes, strides, anchors, strict=True):
        y, x = torch.meshgrid(
            torch.arange(height, device=shapes.device), torch.arange(width, device=shapes.device), indexing="ij"
        )
        corners = torch.stack((x, y), dim=-1).to(shapes.dtype) * stride  # (H_l, W_l, 2)
        corners = torch.cat((corners, torch.full_like(corners[..., :1], stride)), dim=-1)[:, :, None]
        corners = corners.expand(-1, -1, len(shapes), -1)  # (H_l, W_l, A_l, 3)
        parts.append(torch.cat((corners, shapes.expand(*corners.shape[:2], -1, -1)), dim=-1).reshape(-1, 5))
    return torch.cat(parts)


def decode_boxes(regression: Tensor, rows: Tensor) -> Tensor:
    """tx, ty, tw, th (..., 4) and their rows (..., 5) to boxes (..., 4) `xyxy` in input pixels.

    The center is sigmoid(t) cells from the cell's corner, and so within its cell; sizes are e^t times the anchor's.
    """
    corner, stride, anchor = rows.split((2, 1, 2), dim=-1)
    center = corner + regression[..., :2].sigmoid() * stride
    half = anchor * regression[..., 2:4].clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat((center - half, center + half), dim=-1)


def encode_boxes(boxes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse: places in the cell (..., 2) in [0, 1], after the sigmoid, and log scales (..., 2).

    Args:
        boxes: (..., 4) `xyxy` in input pixels, with an area; a center outside its row's cell is drawn to its border.
    """
    corner, stride, anchor = rows.split((2, 1, 2), dim=-1)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    place = ((center - corner) / stride).clamp(0, 1)
    return place, ((boxes[..., 2:] - boxes[..., :2]) / anchor).log().clamp(max=MAX_LOG_SCALE)


def regression_loss(regression: Tensor, place: Tensor, scale: Tensor) -> Tensor:
    """(...,) from tx, ty, tw, th (..., 4) and what `encode_boxes` gives.

    Cross entropy on the place in the cell, half the squared error on the log scales: so the gradient is prediction less
    target, as Darknet writes it.
    """
    entropy = F.binary_cross_entropy_with_logits(regression[..., :2], place, reduction="none")
    return entropy.sum(dim=-1) + 0.5 * (regression[..., 2:4] - scale).square().sum(dim=-1)


def real_boxes(boxes: Tensor, valid: Tensor) -> Tensor:
    """(N, M) bool: ground-truth boxes, of (N, M, 4), that are not padding and have an area."""
    return valid & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


@torch.no_grad()
def pair_by_shape(boxes: Tensor, valid: Tensor, anchors: Tensor, grid: Grid, threshold: float = 1.0) -> Pairs:
    """Each ground-truth box and the anchor whose shape fits it best, in the cell of its center; one wait for the
    device.

    Args:
        boxes: (N, M, 4) `xyxy` in input pixels.
        valid: (N, M) bool.
        anchors: (A, 2) width and height of all levels, in input pixels.
        threshold: further anchors of which the shape's IoU is more than this are paired too.
    """
    size = (boxes[..., 2:] - boxes[..., :2])[:, :, None]  # (N, M, 1, 2)
    shared = torch.minimum(size, anchors).prod(dim=-1)  # (N, M, A), of two boxes with one center
    overlap = shared / (size.prod(dim=-1) + anchors.prod(dim=-1) - shared)
    wanted = torch.zeros_like(overlap, dtype=torch.bool).scatter_(2, overlap.argmax(dim=2, keepdim=True), True)
    if threshold < 1:
        wanted |= overlap > threshold
    image, truth, anchor = (wanted & valid[..., None]).nonzero(as_tuple=True)
    center = (boxes[image, truth, :2] + boxes[image, truth, 2:]) / 2  # (P, 2)
    x, y = (center / grid.strides[anchor, None]).floor().long().unbind(dim=-1)
    x = x.clamp(min=0).minimum(grid.widths[anchor] - 1)  # a center on or beyond the border belongs to the last cell
    y = y.clamp(min=0).minimum(grid.heights[anchor] - 1)
    row = grid.first[anchor] + (y * grid.widths[anchor] + x) * grid.counts[anchor]
    return Pairs(image, truth, row)


def last_of_each_row(pairs: Pairs, num_images: int, num_rows: int) -> Tensor:
    """(P,) int64: of all pairs with the same image and row the last one; each pair that owns its row names itself."""
    flat = pairs.image * num_rows + pairs.row
    owner = torch.full((num_images * num_rows,), -1, dtype=torch.int64, device=flat.device)
    return owner.scatter_reduce_(0, flat, torch.arange(len(flat), device=flat.device), "amax")[flat]


@torch.no_grad()
def best_overlaps(candidates: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
    """(N, R) greatest IoU of each candidate (N, R, 4) with a ground-truth box (N, M, 4), 0 where there is none.

    A few ground-truth boxes at a time, so that the memory does not grow with their number.
    """
    best = candidates.new_zeros(candidates.shape[:2])
    step = max(1, MAX_OVERLAPS.get(best.device.type, MAX_OVERLAPS_ELSEWHERE) // best.numel())
    for start in range(0, valid.shape[1], step):
        part = slice(start, start + step)
        overlap = pairwise_iou(boxes[:, part], candidates).masked_fill(~valid[:, part, None], 0.0)  # (N, m, R)
        best = torch.maximum(best, overlap.amax(dim=1))
    return best


def checked_anchors(
    who: str,
    anchors: Sequence[Sequence[Sequence[float]]] | None,
    levels: list[str],
    defaults: Mapping[int, Sequence[Sequence[Sequence[float]]]],
) -> list[list[tuple[float, float]]]:
    """The anchors of each level as floats: those given, or the default ones for as many levels."""
    if anchors is None:
        if len(levels) not in defaults:
            raise ValueError(
                f"{who} has its own anchors for {' or '.join(map(str, sorted(defaults)))} levels, but the features "
                f"are {', '.join(levels) or 'none'}. Give `anchors`; `vertebra yolo anchors` finds them"
            )
        anchors = defaults[len(levels)]
    if len(anchors) != len(levels):
        raise ValueError(f"{who}: {len(anchors)} lists of anchors for {len(levels)} levels ({', '.join(levels)})")
    for level, name in zip(anchors, levels, strict=True):
        if not level or any(len(one) != 2 or min(one) <= 0 for one in level):
            raise ValueError(
                f"{who}: the anchors of level {name} are {level}; expected [width, height] above 0, in pixels"
            )
    return [[(float(w), float(h)) for w, h in level] for level in anchors]
