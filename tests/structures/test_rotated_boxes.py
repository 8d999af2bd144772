import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.detection import batched_nms, batched_nms_rotated, nms_rotated
from vertebra.structures import Boxes, RotatedBoxes, matched_rotated_iou, pairwise_iou, pairwise_iou_rotated
from vertebra.structures.rotated_boxes import map_rotated

ROTATED_BOX = st.tuples(
    *(st.floats(-50, 50), st.floats(-50, 50)), *(st.floats(0.5, 80), st.floats(0.5, 80)), st.floats(-360, 360)
)


def random_boxes(count: int, seed: int, largest: float = 60.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 5, generator=generator) * torch.tensor([200, 200, largest, largest, 720])


def covered(box: list[float], xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Which points lie in a rotated box, by its definition."""
    cx, cy, w, h, degrees = box
    angle = math.radians(degrees)
    along = (xs - cx) * math.cos(angle) - (ys - cy) * math.sin(angle)  # y points down
    across = (xs - cx) * math.sin(angle) + (ys - cy) * math.cos(angle)
    return (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)


def test_iou_worked_by_hand():
    square = RotatedBoxes([[0, 0, 2, 2, 0]])
    octagon = 8 * (math.sqrt(2) - 1)
    others = {
        (0, 0, 2, 2, 45): octagon / (8 - octagon),
        (0, 0, 2, 2, 90): 1,
        (0, 0, 2, 2, -270): 1,
        (1, 0, 2, 2, 0): 1 / 3,
        (2, 0, 2, 2, 0): 0,  # they touch
        (0, 0, 1, 1, 33): 1 / 4,  # within
        (0, 0, 4, 1, 0): 2 / 6,  # a cross
        (1, 1, math.sqrt(2), math.sqrt(2), 45): 0.5 / 5.5,  # a quarter of it in a corner of the square
        (0, 0, 0, 3, 20): 0,
        (50, 0, 2, 2, 10): 0,
    }
    found = pairwise_iou_rotated(square, RotatedBoxes(list(others)))[0]
    assert found.tolist() == pytest.approx(list(others.values()), abs=1e-6)


def test_iou_of_upright_boxes_is_that_of_boxes():
    boxes = random_boxes(300, 0)
    upright = torch.cat((boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2), dim=1)
    expected = pairwise_iou(Boxes(upright), Boxes(upright))
    for turn in (0, 180, -360):
        boxes[:, 4] = turn
        assert torch.allclose(pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(boxes)), expected, atol=3e-6)
    swapped = torch.cat((boxes[:, [0, 1, 3, 2]], torch.full((300, 1), 90.0)), dim=1)
    assert torch.allclose(pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(swapped)), expected, atol=3e-6)


@settings(max_examples=150, deadline=None)
@given(ROTATED_BOX, ROTATED_BOX)
def test_iou_is_symmetric_within_bounds_and_that_of_counted_points(first, second):
    one, other = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    iou = float(matched_rotated_iou(one, other))
    assert iou == pytest.approx(float(matched_rotated_iou(other, one)), abs=1e-6) and 0 <= iou <= 1
    assert float(matched_rotated_iou(one, one)) == pytest.approx(1)
    reach = 50 + 80  # covers both
    xs, ys = np.meshgrid(np.linspace(-reach, reach, 521), np.linspace(-reach, reach, 521))
    a, b = covered(first, xs, ys), covered(second, xs, ys)
    if min(first[2], first[3], second[2], second[3]) > 20:
        assert iou == pytest.approx((a & b).sum() / (a | b).sum(), abs=0.03)


@settings(max_examples=100, deadline=None)
@given(ROTATED_BOX, st.floats(0, 1e-6), st.sampled_from([0, 90, 180, 270]))
def test_boxes_that_nearly_agree_have_an_iou_near_one(box, change, turn):
    other = list(box)
    other[4] += turn + change
    if turn % 180:
        other[2], other[3] = other[3], other[2]
    pair = torch.tensor([box], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)
    assert float(matched_rotated_iou(*pair)) == pytest.approx(1, abs=1e-5)


def test_iou_does_not_depend_on_where_and_how_large_everything_is():
    first, second = random_boxes(200, 1), random_boxes(200, 2)
    expected = matched_rotated_iou(first, second)
    assert (expected > 0).sum() > 10
    factor = torch.tensor([1e4, 1e4, 1e4, 1e4, 1])
    assert torch.allclose(matched_rotated_iou(first * factor, second * factor), expected, atol=1e-5)
    turn = math.radians(37)
    linear = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    moved = [map_rotated(boxes.double(), linear.double()) for boxes in (first, second)]
    assert torch.allclose(matched_rotated_iou(*moved), expected, atol=1e-5)


def test_many_pairs_are_taken_in_pieces_and_none_at_all_is_fine():
    boxes = RotatedBoxes(random_boxes(400, 3, largest=300.0))
    found = pairwise_iou_rotated(boxes, boxes)
    assert (found > 0).sum() > 1 << 15 and torch.allclose(found.diag(), torch.ones(400))
    nothing = RotatedBoxes([])
    assert pairwise_iou_rotated(nothing, boxes).shape == (0, 400)
    assert nms_rotated(nothing.tensor, torch.zeros(0), 0.5).tolist() == []


def test_unequal_scaling_follows_detectron2s_rule():
    """Lengths of the sides as they are there, and the angle of the height: worked for 3-4-5 triangles."""
    boxes = RotatedBoxes([[10, 20, 5, 10, math.degrees(math.atan2(3, 4))]])  # cos 0.8, sin 0.6
    boxes.scale(2, 1)
    width, height = 5 * math.hypot(1.6, 0.6), 10 * math.hypot(1.2, 0.8)
    angle = math.degrees(math.atan2(1.2, 0.8))
    assert boxes.tensor[0].tolist() == pytest.approx([20, 20, width, height, angle], rel=1e-6)
    equal = RotatedBoxes([[10, 20, 5, 10, 30]])
    equal.scale(3, 3)
    assert equal.tensor[0].tolist() == pytest.approx([30, 60, 15, 30, 30])


def test_corners_run_around_the_box_as_those_of_an_upright_one():
    assert RotatedBoxes([[10, 20, 4, 2, 0]]).corners()[0].tolist() == [[8, 19], [12, 19], [12, 21], [8, 21]]
    turned = RotatedBoxes([[10, 20, 4, 2, 90]]).corners()[0]  # counterclockwise: the right end points up
    assert torch.allclose(turned, torch.tensor([[9.0, 22], [9, 18], [11, 18], [11, 22]]), atol=1e-5)


def test_only_nearly_upright_boxes_are_clipped():
    boxes = RotatedBoxes([[0, 10, 20, 10, 0.5], [0, 10, 20, 10, 30], [5, 5, 4, 4, 361], [100, 100, 4, 4, 0]])
    boxes.clip((40, 50))
    assert boxes.tensor[0].tolist() == [5, 10, 10, 10, 0.5]
    assert boxes.tensor[1].tolist() == [0, 10, 20, 10, 30]
    assert boxes.tensor[2].tolist() == [5, 5, 4, 4, 1]
    assert boxes.nonempty().tolist() == [True, True, True, False]


def test_the_rest_of_the_structure():
    boxes = RotatedBoxes([[10, 20, 4, 2, 190], [0, 0, 3, 3, 45]])
    assert boxes.area().tolist() == [8, 9] and boxes.get_centers().tolist() == [[10, 20], [0, 0]]
    assert boxes.inside_box((100, 100)).tolist() == [True, False]
    assert len(boxes[torch.tensor([False, True])]) == 1 and boxes[1].tensor.tolist() == [[0, 0, 3, 3, 45]]
    assert len(RotatedBoxes.cat([boxes, boxes])) == 4 and len(RotatedBoxes.cat([])) == 0
    copy = boxes.clone().to("cpu")
    copy.normalize_angles()
    assert copy.tensor[0, 4] == -170 and boxes.tensor[0, 4] == 190 and copy.device.type == "cpu"
    assert len(list(boxes)) == 2 and "RotatedBoxes" in repr(boxes)
    with pytest.raises(ValueError, match=r"\(N, 5\) tensor of center x, center y, width, height, angle"):
        RotatedBoxes([[1, 2, 3, 4]])
    with pytest.raises(IndexError, match="selects no rows"):
        boxes[torch.tensor(0)]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms_keeps_what_the_definition_keeps(threshold):
    boxes, groups = random_boxes(700, 4), torch.arange(700) % 3
    scores = torch.rand(700, generator=torch.Generator().manual_seed(5)).mul(50).round()  # many are equal
    iou, kept = pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(boxes)), []
    for row in scores.sort(descending=True, stable=True)[1].tolist():
        if not any(groups[row] == groups[other] and iou[row, other] > threshold for other in kept):
            kept.append(row)
    assert batched_nms_rotated(boxes, scores, groups, threshold).tolist() == kept


def test_nms_of_upright_boxes_is_that_of_boxes():
    boxes, scores, groups = random_boxes(900, 6), torch.rand(900), torch.arange(900) % 2
    boxes[:, 4] = 0
    upright = torch.cat((boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2), dim=1)
    assert torch.equal(batched_nms_rotated(boxes, scores, groups, 0.5), batched_nms(upright, scores, groups, 0.5))
