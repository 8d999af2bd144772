"""Losses on scores: cases worked by hand, and what holds at the edges."""

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from torch.nn import functional as F

from vertebra.models.losses import BinaryCrossEntropy, CrossEntropy, SigmoidFocalLoss


def test_focal_loss_by_hand():
    """Logit 0: p = 1/2, entropy ln 2. Positive 0.25 * 1/4 * ln 2, negative 0.75 * 1/4 * ln 2.
    Logit ln 3: p = 3/4. Positive 0.25 * 1/16 * ln(4/3), negative 0.75 * 9/16 * ln 4."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), math.log(3)]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    want = [[math.log(2) / 16, 3 * math.log(2) / 16], [math.log(4 / 3) / 64, 27 * math.log(4) / 64]]
    for row, values in zip(SigmoidFocalLoss()(logits, targets).tolist(), want, strict=True):
        assert row == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_value_and_gradient_are_fvcores(alpha, gamma, soft):
    torch.manual_seed(0)
    x = torch.randn(40, 7, requires_grad=True)
    y = torch.rand(40, 7) if soft else (torch.rand(40, 7) > 0.7).float()
    weight = torch.rand(40, 7)
    ours, want = SigmoidFocalLoss(alpha, gamma)(x, y), sigmoid_focal_loss(x, y, -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-6)
    (got,) = torch.autograd.grad((ours * weight).sum(), x)
    (gradient,) = torch.autograd.grad((want * weight).sum(), x)
    torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_finite_at_extreme_logits(target, gamma):
    x = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], requires_grad=True)
    loss = SigmoidFocalLoss(gamma=gamma)(x, torch.full((7,), target))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all() and (loss >= 0).all()
    assert (x.grad <= 0).all() if target else (x.grad >= 0).all()


def test_focal_class_ids_are_one_hot_targets_and_other_ids_background():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3)
    ids = torch.tensor([[0, 1, 2, 3, -1], [3, 2, 2, 0, 99]])
    one_hot = F.one_hot(ids.where((ids >= 0) & (ids < 3), 3), 4)[..., :3].float()
    torch.testing.assert_close(SigmoidFocalLoss()(logits, ids), SigmoidFocalLoss()(logits, one_hot))


def test_focal_reductions_and_half_precision():
    x, y = torch.randn(6, 3), (torch.rand(6, 3) > 0.5).float()
    each = SigmoidFocalLoss()(x, y)
    torch.testing.assert_close(SigmoidFocalLoss(reduction="sum")(x, y), each.sum())
    torch.testing.assert_close(SigmoidFocalLoss(reduction="mean")(x, y), each.mean())
    half = x.bfloat16().requires_grad_()
    loss = SigmoidFocalLoss(reduction="sum")(half, y)
    loss.backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, SigmoidFocalLoss(reduction="sum")(half.detach().float(), y))
    assert SigmoidFocalLoss(reduction="mean")(x[:0], y[:0]).item() == 0


def test_focal_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"targets \(6, 2\).*logits \(6, 3\).*class ids of shape \(6,\)"):
        SigmoidFocalLoss()(torch.zeros(6, 3), torch.zeros(6, 2))
    with pytest.raises(ValueError, match="gamma -1"):
        SigmoidFocalLoss(gamma=-1)


def test_cross_entropy_by_hand():
    """Logits (0, ln 3): probabilities 1/4 and 3/4."""
    logits = torch.tensor([[0.0, math.log(3)]])
    label = torch.tensor([0])
    assert CrossEntropy()(logits, label).item() == pytest.approx(math.log(4))
    smoothed = 0.95 * math.log(4) + 0.05 * math.log(4 / 3)  # 0.1 over two classes leaves 0.95 on the label
    assert CrossEntropy(label_smoothing=0.1)(logits, label).item() == pytest.approx(smoothed)


def test_cross_entropy_mean_is_over_labels_that_count():
    logits = torch.tensor([[0.0, math.log(3)]] * 3)
    labels = torch.tensor([0, 1, 255])
    assert CrossEntropy()(logits, labels).item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)
    weighted = CrossEntropy(class_weights=[3.0, 1.0])(logits, labels)
    assert weighted.item() == pytest.approx((3 * math.log(4) + math.log(4 / 3)) / 4)
    assert CrossEntropy(reduction="none")(logits, labels)[2] == 0
    assert CrossEntropy(reduction="sum")(logits, labels).item() == pytest.approx(math.log(4) + math.log(4 / 3))


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs_where_anything_counts(class_weights, label_smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = 255
    weight = None if class_weights is None else torch.tensor(class_weights)
    want = F.cross_entropy(logits, labels, weight=weight, ignore_index=255, label_smoothing=label_smoothing)
    torch.testing.assert_close(CrossEntropy(class_weights, label_smoothing=label_smoothing)(logits, labels), want)


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0]])
def test_cross_entropy_of_nothing_is_a_differentiable_zero(class_weights):
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = CrossEntropy(class_weights)(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.eq(0).all()


def test_cross_entropy_says_what_does_not_fit():
    with pytest.raises(ValueError, match="ignore_index 255 is one of the 300 classes; set ignore_index"):
        CrossEntropy()(torch.zeros(1, 300), torch.tensor([1]))
    fixed = CrossEntropy(ignore_index=-100)(torch.zeros(1, 300), torch.tensor([255]))
    assert fixed.item() == pytest.approx(math.log(300))
    with pytest.raises(ValueError, match="2 class_weights for 3 classes"):
        CrossEntropy([1.0, 2.0])(torch.zeros(1, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="label_smoothing is 2"):
        CrossEntropy(label_smoothing=2)


def test_class_weights_move_with_the_module_but_are_no_weights_of_it():
    loss = CrossEntropy([1.0, 2.0])
    assert loss.state_dict() == {} and loss.to("meta").class_weights.device.type == "meta"


def test_binary_cross_entropy_by_hand():
    """Logit ln 3: p = 3/4."""
    logits, targets = torch.tensor([math.log(3)] * 2), torch.tensor([1.0, 0.0])
    each = BinaryCrossEntropy(reduction="none")(logits, targets)
    assert each.tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    assert BinaryCrossEntropy()(logits, targets).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    weighted = BinaryCrossEntropy(pos_weight=2, reduction="sum")(logits, targets)
    assert weighted.item() == pytest.approx(2 * math.log(4 / 3) + math.log(4))
    extreme = BinaryCrossEntropy(reduction="none")(torch.tensor([1e4, -1e4]), torch.tensor([0.0, 1.0]))
    assert extreme.tolist() == [1e4, 1e4]
    with pytest.raises(ValueError, match=r"logits \(2,\) but targets \(1,\)"):
        BinaryCrossEntropy()(logits, targets[:1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(label_smoothing=1.0),  # a target without the label
        lambda: SigmoidFocalLoss(alpha=0.0),
        lambda: SigmoidFocalLoss(alpha=1.0),
        lambda: BinaryCrossEntropy(pos_weight=0.0),
    ],
)
def test_a_loss_of_which_one_side_never_counts_is_refused(make):
    with pytest.raises(ValueError, match=r"label_smoothing is 1|alpha|pos_weight is 0"):
        make()
