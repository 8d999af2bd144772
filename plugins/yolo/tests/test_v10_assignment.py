"""Task-aligned assignment and distribution focal loss: cases by hand, and plain loops as the reference."""

import math

import pytest
import torch

from vertebra.structures import pairwise_iou
from vertebra_yolo.assign_aligned import match_aligned
from vertebra_yolo.dfl import boxes_from_distances, distances_from_boxes, distribution_loss, expected_distances

SIZE = (64, 96)


def grid(stride=8, size=SIZE):
    ys, xs = torch.meshgrid(torch.arange(size[0] // stride), torch.arange(size[1] // stride), indexing="ij")
    return (torch.stack((xs, ys), dim=-1).reshape(-1, 2).float() + 0.5) * stride


def random_predictions(num_images, num_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = grid()
    logits = torch.randn(num_images, len(points), num_classes, generator=generator)
    sides = torch.rand(num_images, len(points), 4, generator=generator) * 30 + 2
    return logits, torch.cat((points - sides[..., :2], points + sides[..., 2:]), dim=-1), points


def by_loops(logits, boxes, points, truth, classes, topk, alpha=0.5, beta=6.0):
    """One image: the paper's steps object by object, then cell by cell."""
    iou = pairwise_iou(truth, boxes)
    chosen = []
    for m, (x0, y0, x1, y1) in enumerate(truth.tolist()):
        inside = [r for r, (x, y) in enumerate(points.tolist()) if x0 < x < x1 and y0 < y < y1]
        if not inside:
            away = [abs(x - (x0 + x1) / 2) + abs(y - (y0 + y1) / 2) for x, y in points.tolist()]
            inside = [away.index(min(away))]
        metric = {r: float(logits[r, classes[m]].sigmoid() ** alpha * iou[m, r] ** beta) for r in inside}
        chosen.append({r: metric[r] for r in sorted(inside, key=metric.get, reverse=True)[:topk]})
    owner = {}
    for m, cells in enumerate(chosen):
        for r in cells:
            if r not in owner or iou[m, r] > iou[owner[r], r]:
                owner[r] = m
    target = torch.zeros(len(points))
    for m, cells in enumerate(chosen):
        own = [r for r in cells if owner[r] == m]
        if own:
            most, best = max(cells[r] for r in own), max(float(iou[m, r]) for r in own)
            for r in own:
                target[r] = cells[r] / most * best if most > 0 else 0
    return torch.tensor([owner.get(r, -1) for r in range(len(points))]), target


@pytest.mark.parametrize("topk", [1, 10])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_loops_over_objects_and_cells_find(truth_batch, random_boxes, topk, seed):
    boxes = [random_boxes(6, SIZE, seed, 12.0), [], random_boxes(25, SIZE, seed + 9, 4.0)]
    classes = [torch.arange(len(some)) % 3 for some in boxes]
    batch = truth_batch(boxes, classes)
    logits, predicted, points = random_predictions(3, seed=seed)
    found = match_aligned(
        logits, predicted, points, batch.gt_boxes, batch.gt_classes, batch.gt_valid, topk=topk, alpha=0.5, beta=6.0
    )
    assert (found.object[1] == -1).all() and (found.target[1] == 0).all()
    for i in (0, 2):
        owner, target = by_loops(logits[i], predicted[i], points, boxes[i], classes[i], topk)
        assert torch.equal(found.object[i], owner)
        torch.testing.assert_close(found.target[i], target, rtol=1e-3, atol=1e-5)


def test_one_to_one_gives_each_object_one_cell_at_most(truth_batch, random_boxes):
    batch = truth_batch([random_boxes(30, SIZE)])
    logits, predicted, points = random_predictions(1)
    found = match_aligned(logits, predicted, points, batch.gt_boxes, batch.gt_classes, batch.gt_valid, topk=1)
    taken = found.object[found.object >= 0]
    assert len(taken) == len(taken.unique())


def test_one_to_one_takes_the_first_of_one_to_many(truth_batch):
    """Consistent matching (YOLOv10, section 3.1): with the same alpha and beta the best cell is the same."""
    batch = truth_batch([[[10, 10, 60, 50]]])
    logits, predicted, points = random_predictions(1)
    arguments = (logits, predicted, points, batch.gt_boxes, batch.gt_classes, batch.gt_valid)
    one, many = (match_aligned(*arguments, topk=topk) for topk in (1, 10))
    assert (one.object >= 0).sum() == 1 and (many.object >= 0).sum() == 10
    assert one.target.argmax() == many.target.argmax()
    best = pairwise_iou(batch.gt_boxes[0], predicted[0])[0][many.object[0] >= 0].max()
    assert many.target.max() == pytest.approx(best.item())


def test_an_object_smaller_than_a_cell_takes_the_nearest_one(truth_batch):
    batch = truth_batch([[[30, 30, 31, 31]]])  # between the centers 28 and 36: 28 is nearer
    logits, predicted, points = random_predictions(1)
    found = match_aligned(logits, predicted, points, batch.gt_boxes, batch.gt_classes, batch.gt_valid, topk=10)
    assert points[found.object[0] >= 0].tolist() == [[28.0, 28.0]]


def test_distances_are_the_mean_of_the_distribution():
    logits = torch.full((1, 4 * 8), -50.0)
    logits[0, [3, 8 + 1, 8 + 2, 16 + 7, 24]] = 50.0  # 3; between 1 and 2; 7; 0
    torch.testing.assert_close(expected_distances(logits), torch.tensor([[3.0, 1.5, 7.0, 0.0]]))


def test_boxes_and_distances_are_inverse():
    points = torch.tensor([[4.5, 2.5], [1.5, 7.5]])
    boxes = torch.tensor([[1.0, 1.0, 9.0, 6.0], [0.5, 7.0, 4.0, 9.25]])
    distances = distances_from_boxes(boxes, points, 16)
    torch.testing.assert_close(boxes_from_distances(distances, points, torch.ones(2, 1)), boxes)
    far = distances_from_boxes(torch.tensor([[-90.0, 0.0, 90.0, 10.0]]), points[:1], 16)
    assert far.max() < 15


def test_distribution_loss_worked_by_hand():
    """Equation 6: the target 2.25 pulls at bin 2 with 0.75 and at bin 3 with 0.25."""
    logits = torch.zeros(1, 4 * 4, requires_grad=True)
    loss = distribution_loss(logits, torch.full((1, 4), 2.25))
    assert loss.item() == pytest.approx(math.log(4))
    loss.sum().backward()
    slope = torch.tensor([0.25, 0.25, 0.25 - 0.75, 0.25 - 0.25]) / 4
    torch.testing.assert_close(logits.grad.view(4, 4), slope.expand(4, 4))
