"""Distance maps against brute force, the boundary loss and U-Net's weight map by hand."""

import math

import pytest
import torch

from vertebra.models.losses import BoundaryLoss, DistanceWeightedCrossEntropy
from vertebra.models.losses.distance_maps import (
    connected_cells,
    distance_to,
    distances_to_two_cells,
    signed_distance,
)


def brute(mask):
    """To the nearest pixel of an (H, W) mask, by comparing all pairs."""
    every = torch.ones_like(mask).nonzero().double()
    return torch.cdist(every, mask.nonzero().double()).amin(dim=1).view(mask.shape).float()


@pytest.mark.parametrize("shape", [(9, 13), (13, 9), (1, 7), (7, 1), (1, 1)])
def test_distances_are_those_of_brute_force(shape):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 2, *shape, generator=generator) < 0.1
    masks[..., 0, 0] = True
    found = distance_to(masks)
    for mask, distance in zip(masks.flatten(0, 1), found.flatten(0, 1), strict=True):
        torch.testing.assert_close(distance, brute(mask))


def masks_of_many_kinds(height, width):
    """(7, H, W): noise thin and thick, one pixel, nothing, everything, a disk, a diagonal line."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(2, height, width, generator=generator) < torch.tensor([0.003, 0.4]).view(2, 1, 1)
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    one = (ys == height - 2) & (xs == 1)
    disk = (ys - height / 2) ** 2 + (xs - width / 3) ** 2 < (width / 5) ** 2
    return torch.stack((*noise, one, one & False, one | True, disk, xs * height // width == ys))


@pytest.mark.parametrize("shape", [(60, 47), (41, 64)])
def test_distances_on_larger_maps_are_those_of_brute_force(shape):
    """Far and near ones side by side: each map's search ends by itself."""
    masks = masks_of_many_kinds(*shape)
    for mask, distance in zip(masks, distance_to(masks), strict=True):
        torch.testing.assert_close(distance, brute(mask) if mask.any() else torch.full(shape, float(sum(shape))))


@pytest.mark.parametrize("max_distance", [None, 6.5])
def test_signed_distances_are_those_of_each_mask_alone(max_distance):
    """Whether or not others beside it have a border."""
    masks = masks_of_many_kinds(40, 33)
    found = signed_distance(masks.view(1, 7, 40, 33), max_distance)[0]
    for mask, signed in zip(masks, found, strict=True):
        if mask.all() or not mask.any():
            assert (signed == 0).all()
            continue
        bound = math.inf if max_distance is None else max_distance
        wanted = torch.where(mask, 1 - brute(~mask).clamp(max=bound), brute(mask).clamp(max=bound))
        torch.testing.assert_close(signed, wanted)


def test_bounded_distances_are_exact_up_to_their_bound():
    mask = torch.rand(20, 25, generator=torch.Generator().manual_seed(0)) < 0.01
    mask[3, 4] = True
    torch.testing.assert_close(distance_to(mask, 4.5), brute(mask).clamp(max=4.5))
    assert (distance_to(torch.zeros(6, 7, dtype=torch.bool), 3) == 3).all()
    assert (distance_to(torch.zeros(6, 7, dtype=torch.bool)) == 13).all()


def test_signed_distance_by_hand():
    mask = torch.tensor([[False, True, True, True, True, False, False]])
    assert signed_distance(mask.expand(1, 7))[0].tolist() == [1, 0, -1, -1, 0, 1, 2]
    for border_free in (torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)):
        assert (signed_distance(border_free) == 0).all()


def test_boundary_loss_by_hand():
    """Distances 1, 0, -1, -1, 0, 1, 2 of the foreground times its probabilities, over 7 pixels."""
    labels = torch.tensor([[[0, 1, 1, 1, 1, 0, 0]]])
    p = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.5, 0.2, 0.1])
    logits = torch.stack((1 - p, p)).log().view(1, 2, 1, 7)
    wanted = (0.5 - 0.9 - 0.5 + 0.2 + 2 * 0.1) / 7
    assert BoundaryLoss(classes=[1])(logits, labels).item() == pytest.approx(wanted, rel=1e-5)
    zero = (-1 * 0 + 1 * 0.5 + 2 * 0.1 + 2 * 0.5 + 0.5 + 0 - 0.9) / 7  # 0, 1, 2, 2, 1, 0, -1
    assert BoundaryLoss()(logits, labels).item() == pytest.approx((wanted + zero) / 2, rel=1e-5)
    with pytest.raises(ValueError, match=r"classes \[2\] must be some of 0 to 1"):
        BoundaryLoss(classes=[2])(logits, labels)


def test_an_image_without_the_class_costs_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = BoundaryLoss(classes=[2])(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert value.item() == 0
    value.backward()


def regions(labels, background=0):
    """Sets of pixels of the connected regions of one (H, W) map, by flood fill."""
    left = {tuple(p) for p in (((labels != background) & (labels != 255)).nonzero()).tolist()}
    found = set()
    while left:
        stack, region = [left.pop()], set()
        while stack:
            y, x = stack.pop()
            region.add((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and labels[near] == labels[y, x]:
                    left.remove(near)
                    stack.append(near)
        found.add(frozenset(region))
    return found


def snake(size=15):
    """One region that winds through the whole map: many steps from end to end."""
    labels = torch.zeros(size, size, dtype=torch.int64)
    labels[::2] = 1
    for row in range(1, size, 2):
        labels[row, 0 if row % 4 == 1 else -1] = 1
    return labels


@pytest.mark.parametrize("seed", range(6))
def test_cells_are_the_regions_of_a_flood_fill(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (3, 15, 15), generator=generator).clamp(max=2 if seed % 2 else 1)
    labels[0] = snake()
    labels[1, :3] = 255
    cells = connected_cells(labels, background=0, ignore_index=255)
    for one, numbers in zip(labels, cells, strict=True):
        wanted = regions(one)
        found = {
            frozenset(map(tuple, (numbers == number).nonzero().tolist()))
            for number in numbers.unique().tolist()
            if number
        }
        assert found == wanted


def test_distances_to_the_two_nearest_cells_are_those_of_brute_force():
    generator = torch.Generator().manual_seed(1)
    cells = torch.where(torch.rand(4, 14, 17, generator=generator) < 0.06, 1, 0)
    cells = cells * torch.randint(1, 6, cells.shape, generator=generator)
    first, second = distances_to_two_cells(cells, radius=30)
    for one, near, next_near in zip(cells, first, second, strict=True):
        each = torch.stack([brute(one == number) for number in one.unique().tolist() if number])
        ordered = each.sort(dim=0).values
        torch.testing.assert_close(near, ordered[0])
        torch.testing.assert_close(next_near, ordered[1])


def test_without_a_second_cell_nothing_is_near():
    cells = torch.zeros(1, 3, 5, dtype=torch.int64)
    cells[0, 0, 0] = 1
    first, second = distances_to_two_cells(cells, radius=8)
    assert first[0, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.isinf(second).all()


def test_unets_weights_by_hand():
    """Cells at columns 0-1 and 4-5: between them d1 + d2 is 3, right of them at column 7 it is 2 + 6."""
    labels = torch.tensor([[[1, 1, 0, 0, 1, 1, 0, 0]]])
    weights = DistanceWeightedCrossEntropy(w0=10, sigma=5).weigh(labels)[0, 0]
    gap, outside = 10 * math.exp(-9 / 50), [10 * math.exp(-((1 + 5) ** 2) / 50), 10 * math.exp(-((2 + 6) ** 2) / 50)]
    wanted = torch.tensor([1, 1, 1 + gap, 1 + gap, 1, 1, 1 + outside[0], 1 + outside[1]])
    torch.testing.assert_close(weights, wanted)
    balanced = DistanceWeightedCrossEntropy(w0=10, sigma=5, class_weights=[0.5, 2.0]).weigh(labels)[0, 0]
    torch.testing.assert_close(balanced, wanted - 1 + torch.tensor([2, 2, 0.5, 0.5, 2, 2, 0.5, 0.5]))


def test_a_gap_costs_more_than_open_background():
    labels = torch.zeros(1, 20, 21, dtype=torch.int64)
    labels[0, 8:14, 3:9] = labels[0, 8:14, 10:16] = 1
    loss = DistanceWeightedCrossEntropy()
    logits = torch.zeros(1, 2, 20, 21, requires_grad=True)
    loss(logits, labels).backward()
    gradient = logits.grad[0, 1]
    assert gradient[10, 9].item() == pytest.approx(
        (1 + 10 * math.exp(-4 / 50)) * gradient[10, 5].abs().item(), rel=1e-4
    )
    assert gradient[0, 0] < 0.3 * gradient[10, 9]
