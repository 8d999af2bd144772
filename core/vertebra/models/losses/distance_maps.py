"""Euclidean distances on label maps, as batched tensor code on the labels' own device.

Exact, by one pass over columns and one over rows: Felzenszwalb & Huttenlocher, "Distance Transforms of Sampled
Functions", Theory of Computing 2012, equation 4, with the minimum of a row taken over all shifts at once for all rows.
Distances are between the centers of pixels, in pixels. Letters: N images, H x W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["connected_cells", "distance_to", "distances_to_two_cells", "signed_distance"]

_CELLS_IN_CACHE = 1 << 17  # of two float32 maps and what is between
_TwoNearest = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.no_grad()
def distance_to(mask: Tensor, max_distance: float | None = None) -> Tensor:
    """To the nearest pixel in `mask`, (..., H, W) bool to float32; 0 inside.

    Takes 2 min(H, W) passes over the map, or 2 max_distance. A CPU goes map by map, which then stay in its cache, and
    ends a map's passes at its greatest distance.

    Args:
        max_distance: greater distances become this; None: exact, and H + W where nothing is in the mask.
    """
    if mask.shape[-1] > mask.shape[-2]:  # the loop goes over the shorter side
        return distance_to(mask.transpose(-1, -2), max_distance).transpose(-1, -2)
    height, width = mask.shape[-2:]
    far = float(height + width)
    column = _distance_in_column(mask, far).square_().contiguous()
    nearest = column.clone()
    reach = width - 1 if max_distance is None else min(width - 1, math.ceil(max_distance))
    if mask.device.type == "cpu":
        maps = (x.view(-1, height, width).split(max(_CELLS_IN_CACHE // (height * width), 1)) for x in (nearest, column))
        for nearest_part, column_part in zip(*maps, strict=True):
            _take_nearer(nearest_part, column_part, reach, stop_early=True)
    else:
        _take_nearer(nearest, column, reach, stop_early=False)
    return nearest.sqrt_().clamp_(max=far if max_distance is None else max_distance)


@torch.no_grad()
def signed_distance(mask: Tensor, max_distance: float | None = None) -> Tensor:
    """To the border of `mask`: above 0 outside, 0 on its outermost pixels and below 0 further inside.

    (..., H, W) bool to float32; 0 everywhere for a mask that is empty or full, which has no border.
    """
    border = mask.flatten(-2).any(-1) & ~mask.flatten(-2).all(-1)
    if mask.device.type == "cpu":  # most classes are in none of a few images; on a GPU asking would stop the queue
        signed = torch.zeros(mask.shape)
        signed[border] = _signed_distance(mask[border], max_distance)
        return signed
    return _signed_distance(mask, max_distance) * border[..., None, None]


@torch.no_grad()
def connected_cells(labels: Tensor, background: int, ignore_index: int) -> Tensor:
    """Numbers of the connected regions of one class, (N, H, W) int64 to int64; 0 for background and ignored pixels.

    Regions touch over sides of pixels, not over corners. Numbers are above 0, not consecutive, and apart within an
    image. The search runs until nothing changes, a handful of rounds, and asks the device after each of them.
    """
    count, (height, width) = len(labels), labels.shape[-2:]
    inside = (labels != background) & (labels != ignore_index)
    number = torch.arange(1, height * width + 1, device=labels.device).view(1, height, width).where(inside, 0)
    rows, columns = (labels[:, 1:] == labels[:, :-1]) & inside[:, 1:], (labels[..., 1:] == labels[..., :-1])
    columns = columns & inside[..., 1:]
    while True:
        best = number.clone()  # the greatest number among a pixel and its neighbors
        for dim, joined in ((1, rows), (2, columns)):
            length = number.shape[dim] - 1
            first, second = number.narrow(dim, 0, length), number.narrow(dim, 1, length)
            _raise(best.narrow(dim, 0, length), second * joined)
            _raise(best.narrow(dim, 1, length), first * joined)
        # Where a pixel saw a greater number, tell the pixel that its own number comes from; then everyone follows.
        table = torch.cat([number.new_zeros(count, 1), best.flatten(1)], dim=1)
        table = table.scatter_reduce(1, number.flatten(1), best.flatten(1), "amax")
        for _ in range(2):
            table = table.gather(1, table)
        table[:, 0] = 0
        following = table[:, 1:].view_as(number)
        if torch.equal(following, number):
            return number
        number = following


@torch.no_grad()
def distances_to_two_cells(cells: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """To the nearest cell and to the nearest other cell, each (N, H, W) float32; infinite beyond `radius`.

    Both passes carry the two nearest cells of different number, so the result is exact within the square of that
    radius around a pixel.

    Args:
        cells: (N, H, W) int64, a number for each cell, 0 between them.
        radius: in pixels; the cost grows with it.
    """
    none = torch.full(cells.shape, math.inf, device=cells.device)
    found = (none.where(cells == 0, 0.0), cells, none, torch.zeros_like(cells))
    for dim in (-2, -1):
        candidates = [found[:2], found[2:]]
        for shift in range(1, min(radius, cells.shape[dim] - 1) + 1):
            for step in (shift, -shift):
                for distance, number in candidates:
                    moved = _shifted(distance, step, dim, math.inf) + shift * shift
                    found = _insert(found, moved, _shifted(number, step, dim, 0))
    return found[0].sqrt(), found[2].sqrt()


def _insert(found: _TwoNearest, distance: Tensor, number: Tensor) -> _TwoNearest:
    """The two nearest of different number among (first, its number, second, its number) and one candidate more."""
    first, first_number, second, second_number = found
    same = number == first_number
    closer = distance < first
    ahead = closer & ~same  # the former first becomes the second
    behind = ~closer & ~same & (distance < second)
    return (
        distance.where(closer, first),
        number.where(ahead, first_number),
        first.where(ahead, distance.where(behind, second)),
        first_number.where(ahead, number.where(behind, second_number)),
    )


def _shifted(x: Tensor, step: int, dim: int, fill: float) -> Tensor:
    """x moved by `step` cells along a dimension, `fill` where nothing came from."""
    out = torch.full_like(x, fill)
    length = x.shape[dim] - abs(step)
    out.narrow(dim, max(step, 0), length).copy_(x.narrow(dim, max(-step, 0), length))
    return out


def _signed_distance(mask: Tensor, max_distance: float | None) -> Tensor:
    """As `signed_distance`, of masks that have a border."""
    outside, inside = distance_to(torch.stack((mask, ~mask)), max_distance)
    return outside - (inside - 1) * mask


def _distance_in_column(mask: Tensor, far: float) -> Tensor:
    """Rows to the nearest pixel of `mask` in the same column, (..., H, W) float32; `far` where there is none."""
    rows = torch.arange(mask.shape[-2], device=mask.device, dtype=torch.float32)[:, None].expand(mask.shape)
    above = rows.where(mask, -far).cummax(dim=-2).values
    below = -((-rows).where(mask, -2 * far).flip(-2).cummax(dim=-2).values.flip(-2))
    return torch.minimum(rows - above, below - rows).clamp_(max=far)


def _take_nearer(nearest: Tensor, column: Tensor, reach: int, stop_early: bool) -> None:
    """Lowers `nearest` (..., W) to the minimum over i of column[..., i] + (x - i)^2, for |x - i| up to `reach`.

    Args:
        stop_early: looks now and then whether greater shifts can still lower anything.
    """
    for shift in range(1, reach + 1):
        if stop_early and shift % 8 == 1 and (nearest <= shift * shift).all():
            return
        _lower(nearest[..., shift:], column[..., :-shift] + shift * shift)
        _lower(nearest[..., :-shift], column[..., shift:] + shift * shift)


def _lower(x: Tensor, y: Tensor) -> None:
    torch.minimum(x, y, out=x)


def _raise(x: Tensor, y: Tensor) -> None:
    torch.maximum(x, y, out=x)
