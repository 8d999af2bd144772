"""Losses on boxes: cases worked by hand, Detectron2's numbers, and what holds for all boxes."""

import json
import math

import pytest
import torch
from fvcore.nn import giou_loss, smooth_l1_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.models.losses import CIoULoss, DIoULoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss

OVERLAP = [IoULoss, GIoULoss, DIoULoss, CIoULoss]

# Two 2 x 2 squares, centers 1 apart: intersection 2, union 6, enclosing box 3 x 2, its diagonal squared 13.
SQUARE, SHIFTED = [0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]
# Touching nowhere: enclosing box 4 x 1, union 2, centers 3 apart.
LEFT, RIGHT = [0.0, 0.0, 1.0, 1.0], [3.0, 0.0, 4.0, 1.0]
# One center: a 4 x 2 box around a 2 x 2 one: IoU 1/2; the diagonals' angles are arctan 2 and arctan 1.
WIDE, INNER = [0.0, 0.0, 4.0, 2.0], [1.0, 0.0, 3.0, 2.0]
ASPECT = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2


@pytest.mark.parametrize(
    ("loss", "first", "second", "value"),
    [
        (IoULoss(), SQUARE, SHIFTED, 1 - 1 / 3),
        (IoULoss(form="log"), SQUARE, SHIFTED, math.log(3)),
        (IoULoss(), LEFT, RIGHT, 1),
        (GIoULoss(), SQUARE, SHIFTED, 1 - 1 / 3),  # the enclosing box holds nothing else
        (GIoULoss(), LEFT, RIGHT, 1 + (4 - 2) / 4),
        (DIoULoss(), SQUARE, SHIFTED, 1 - 1 / 3 + 1 / 13),
        (DIoULoss(), LEFT, RIGHT, 1 + 9 / 17),
        (DIoULoss(), WIDE, INNER, 1 / 2),
        (CIoULoss(), SQUARE, SHIFTED, 1 - 1 / 3 + 1 / 13),  # equal aspect ratios
        (CIoULoss(), WIDE, INNER, 1 / 2 + ASPECT * ASPECT / (1 / 2 + ASPECT)),
    ],
)
def test_overlap_losses_by_hand(loss, first, second, value):
    assert loss(torch.tensor([first]), torch.tensor([second])).tolist() == pytest.approx([value], rel=1e-5)


def test_smooth_l1_by_hand():
    """beta 2: 0.5 * 1 / 2 below it, 3 - 1 above it."""
    prediction, target = torch.tensor([0.0, 1.0, -3.0]), torch.zeros(3)
    assert SmoothL1Loss(beta=2)(prediction, target).tolist() == [0, 0.25, 2]
    assert SmoothL1Loss(beta=0)(prediction, target).tolist() == L1Loss()(prediction, target).tolist() == [0, 1, 3]


def test_smooth_l1_without_width_has_no_nan_gradient():
    prediction = torch.zeros(3, requires_grad=True)
    SmoothL1Loss(beta=0, reduction="sum")(prediction, torch.zeros(3)).backward()
    assert prediction.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("beta", [0.0, 0.11, 1.0])
def test_smooth_l1_and_its_gradient_are_fvcores(beta, reduction):
    torch.manual_seed(0)
    prediction, target = torch.randn(50, 4, requires_grad=True), torch.randn(50, 4)
    ours, want = SmoothL1Loss(beta, reduction)(prediction, target), smooth_l1_loss(prediction, target, beta, reduction)
    torch.testing.assert_close(ours, want)
    gradients = (torch.autograd.grad(loss.sum(), prediction) for loss in (ours, want))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_giou_and_its_gradient_are_fvcores(reduction):
    torch.manual_seed(0)
    corners = (torch.rand(2, 200, 2, 2) * 40).sort(dim=2).values.flatten(2)  # half of the pairs do not overlap
    prediction, target = corners[0].requires_grad_(), corners[1]
    ours, want = GIoULoss(reduction)(prediction, target), giou_loss(prediction, target, reduction)
    torch.testing.assert_close(ours, want)
    gradients = (torch.autograd.grad(loss.sum(), prediction) for loss in (ours, want))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_diou_and_ciou_are_detectron2s(repository):
    numbers = json.loads((repository / "tests/reference/golden_box_losses.json").read_text())
    first, second = torch.tensor(numbers["first"]), torch.tensor(numbers["second"])
    torch.testing.assert_close(DIoULoss()(first, second), torch.tensor(numbers["diou"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(CIoULoss()(first, second), torch.tensor(numbers["ciou"]), rtol=1e-5, atol=1e-6)


side = st.floats(0.5, 50, width=32)
place = st.floats(-50, 50, width=32)
boxes = st.tuples(place, place, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(boxes, boxes)
@settings(deadline=None)
def test_overlap_losses_are_symmetric_bounded_and_ordered(first, second):
    first, second = torch.tensor([first]), torch.tensor([second])
    iou, giou, diou, ciou = (kind()(first, second).item() for kind in OVERLAP)
    assert -1e-5 <= iou <= 1 and iou - 1e-5 <= giou <= 2 and iou - 1e-5 <= diou <= 2 and diou - 1e-5 <= ciou
    for kind, value in zip(OVERLAP, (iou, giou, diou, ciou), strict=True):
        assert kind()(second, first).item() == pytest.approx(value, abs=1e-5)
        assert kind()(first, first).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", OVERLAP)
def test_degenerate_boxes_have_finite_losses_and_gradients(kind):
    prediction = torch.tensor([[5.0, 5, 5, 5], [5, 5, 9, 5], [0, 0, 1, 1]], requires_grad=True)
    target = torch.tensor([[5.0, 5, 5, 5], [1, 1, 2, 8], [1e4, 1e4, 2e4, 2e4]])
    loss = kind(reduction="sum")(prediction, target)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("loss", [SmoothL1Loss, L1Loss, *OVERLAP])
def test_reductions_and_no_boxes_at_all(loss):
    first, second = torch.rand(5, 4).sort().values, torch.rand(5, 4).sort().values
    each = loss()(first, second)
    torch.testing.assert_close(loss(reduction="sum")(first, second), each.sum())
    torch.testing.assert_close(loss(reduction="mean")(first, second), each.mean())
    nothing = torch.zeros(0, 4, requires_grad=True)
    for reduction in ("sum", "mean"):
        total = loss(reduction=reduction)(nothing, nothing.detach())
        total.backward()
        assert total.item() == 0
    with pytest.raises(ValueError, match="'none', 'sum' or 'mean'"):
        loss(reduction="average")
    with pytest.raises(ValueError, match=r"one shape; got \(5, 4\) and \(4, 4\)"):
        loss()(first, second[:4])


def test_half_precision_is_computed_in_float32():
    """In bfloat16 the areas of these boxes would be off by hundreds."""
    first, second = torch.tensor([[0, 0, 128, 128.0]]).bfloat16(), torch.tensor([[0, 0, 128, 129.0]]).bfloat16()
    torch.testing.assert_close(IoULoss()(first, second), IoULoss()(first.float(), second.float()))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="beta is -1"):
        SmoothL1Loss(beta=-1)
    with pytest.raises(ValueError, match="'linear' or 'log'"):
        IoULoss(form="square")
    with pytest.raises(ValueError, match=r"\(..., 4\), xyxy; got \(2, 3\)"):
        GIoULoss()(torch.zeros(2, 3), torch.zeros(2, 3))
