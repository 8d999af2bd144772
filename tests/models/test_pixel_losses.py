"""Losses of labeled pixels: values worked by hand, and what they do with ignored and impossible labels."""

import math

import pytest
import torch
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models.losses import (
    BoundaryLoss,
    CompoundLoss,
    CrossEntropy,
    DiceLoss,
    DistanceWeightedCrossEntropy,
    HardPixelCrossEntropy,
    JaccardLoss,
    LovaszSoftmax,
    PixelBCE,
    PixelFocalLoss,
    TverskyLoss,
)

ALL = [
    CrossEntropy(),
    HardPixelCrossEntropy(),
    PixelFocalLoss(),
    PixelBCE(),
    DiceLoss(),
    DiceLoss(squared=True, per_image=True),
    JaccardLoss(),
    TverskyLoss(),
    LovaszSoftmax(),
    LovaszSoftmax(per_image=True, present_only=False),
    BoundaryLoss(),
    DistanceWeightedCrossEntropy(),
    CompoundLoss([CrossEntropy(), DiceLoss(present_only=False)], [1.0, 0.5]),
]


def ids(losses):
    return [f"{type(loss).__name__}{number}" for number, loss in enumerate(losses)]


def some(height=5, width=6, classes=3, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, height, width, generator=generator)
    return logits, torch.randint(0, classes, (images, height, width), generator=generator)


def logits_of(probabilities):
    """(H, W) probabilities of class 1 of two to logits (1, 2, H, W)."""
    p = torch.as_tensor(probabilities, dtype=torch.float32)
    return torch.stack((1 - p, p)).log()[None]


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_ignored_pixels_change_nothing(loss):
    logits, labels = some()
    labels[0, :3] = 255
    logits.requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert (logits.grad[0, :, :3] == 0).all()
    other = logits.detach().clone()
    other[0, :, :3] = 50.0
    torch.testing.assert_close(loss(other, labels), value.detach())


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_a_batch_that_is_all_ignored_costs_a_differentiable_0(loss):
    logits, labels = some()
    logits.requires_grad_()
    value = loss(logits, torch.full_like(labels, 255))
    assert value.item() == 0
    value.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
@pytest.mark.parametrize("label", [3, -1, 254])
def test_a_label_that_is_no_class_is_named(loss, label):
    logits, labels = some()
    labels[1, 2, 3] = label
    with pytest.raises(DataError, match=rf"1 pixels have the label {label}; labels must be class ids 0 to 2 or 255"):
        loss(logits, labels)


@pytest.mark.parametrize(
    "make", [CrossEntropy, HardPixelCrossEntropy, PixelFocalLoss, PixelBCE, DistanceWeightedCrossEntropy]
)
def test_class_weights_that_do_not_fit_are_named(make):
    for weights in ([2.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]):
        with pytest.raises(ValueError, match=f"{make.__name__}: {len(weights)} class_weights for 3 classes"):
            make(class_weights=weights)(*some())
    for weights in ([], [1.0, -1.0, 1.0], [1.0, math.nan, 1.0]):
        with pytest.raises(ValueError, match="one for each class"):
            make(class_weights=weights)


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_one_pixel_is_enough(loss):
    logits, labels = some(1, 1, images=1)
    value = loss(logits.requires_grad_(), labels)
    assert torch.isfinite(value)
    value.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_the_order_of_images_and_of_pixels_does_not_matter(loss):
    logits, labels = some()
    turned = loss(logits.flip(0, 3).contiguous(), labels.flip(0, 2).contiguous())
    torch.testing.assert_close(turned, loss(logits, labels))


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_gradients_are_those_of_the_values(loss):
    logits, labels = some(3, 3)
    labels[0, 0, 0] = 255
    logits = logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        step = 1e-2
        slope = (loss(logits + step * direction, labels) - loss(logits - step * direction, labels)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("loss", ALL[1:-1], ids=ids(ALL[1:-1]))
def test_shapes_that_do_not_fit_are_named(loss):
    logits, labels = some()
    with pytest.raises(ValueError, match="resize the logits to the labels first"):
        loss(logits[..., :3], labels)
    with pytest.raises(ValueError, match="must be int64 class ids"):
        loss(logits, labels.float())
    loss.ignore_index, before = 1, loss.ignore_index
    try:
        with pytest.raises(ValueError, match="ignore_index 1 is one of the 3 classes"):
            loss(logits, labels)
    finally:
        loss.ignore_index = before


def test_hard_pixels_by_hand():
    """Five pixels of probability 0.9, 0.8, 0.5, 0.2 and 0.1; of these 40 % are the last two."""
    logits = logits_of([[0.9, 0.8, 0.5, 0.2, 0.1]])
    labels = torch.ones(1, 1, 5, dtype=torch.int64)
    wanted = (-math.log(0.2) - math.log(0.1)) / 2
    assert HardPixelCrossEntropy(top_k=0.4)(logits, labels).item() == pytest.approx(wanted, rel=1e-5)
    plain = F.cross_entropy(logits, labels).item()
    assert HardPixelCrossEntropy(top_k=1.0)(logits, labels).item() == pytest.approx(plain, rel=1e-5)


def test_the_share_of_hard_pixels_is_of_all_pixels_ignored_ones_too():
    """As in Detectron2: 40 % of five are two, of which one is ignored and costs 0."""
    logits = logits_of([[0.9, 0.8, 0.5, 0.2, 0.1]])
    labels = torch.tensor([[[255, 255, 255, 255, 1]]])
    assert HardPixelCrossEntropy(top_k=0.4)(logits, labels).item() == pytest.approx(-math.log(0.1) / 2, rel=1e-5)
    assert HardPixelCrossEntropy(top_k=0.01)(logits, labels).item() == pytest.approx(-math.log(0.1), rel=1e-5)


def test_focal_loss_by_hand():
    logits, labels = logits_of([[0.9, 0.2]]), torch.tensor([[[1, 1]]])
    wanted = (-(0.1**2) * math.log(0.9) - 0.8**2 * math.log(0.2)) / 2
    assert PixelFocalLoss(gamma=2)(logits, labels).item() == pytest.approx(wanted, rel=1e-4)
    assert PixelFocalLoss(gamma=0)(logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    weighed = PixelFocalLoss(gamma=2, class_weights=[1.0, 3.0])
    assert weighed(logits, labels).item() == pytest.approx(3 * wanted, rel=1e-4)


def test_focal_loss_below_gamma_1_has_a_finite_slope_where_a_pixel_is_right():
    logits = torch.tensor([[60.0, -60.0]]).view(1, 2, 1, 1).requires_grad_()
    PixelFocalLoss(gamma=0.5)(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).backward()
    assert torch.isfinite(logits.grad).all()


def test_one_class_against_the_rest_by_hand():
    """Three logits of one pixel: the class's own as positive, the others as negatives, their mean."""
    logits = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1)
    target = torch.tensor([0.0, 1.0, 0.0])
    wanted = F.binary_cross_entropy_with_logits(logits.flatten(), target)
    labels = torch.tensor([[[1]]])
    torch.testing.assert_close(PixelBCE()(logits, labels), wanted)
    heavier = F.binary_cross_entropy_with_logits(logits.flatten(), target, pos_weight=torch.tensor(4.0))
    torch.testing.assert_close(PixelBCE(pos_weight=4.0)(logits, labels), heavier)
    only_last = PixelBCE(class_weights=[0.0, 0.0, 1.0])(logits, labels)
    assert only_last.item() == pytest.approx(math.log(1 + math.exp(2.0)) / 3)


PIXELS = [[0.8, 0.6], [0.3, 0.1]]  # probability of class 1
TRUTH = torch.tensor([[[1, 1], [0, 0]]])
# class 1: sum(y p) 1.4, sum(p) 1.8, sum(p^2) 1.1, sum(y) 2; class 0: sum(y q) 1.6, sum(q) 2.2, sum(q^2) 1.5, sum(y) 2


def test_dice_by_hand_in_both_forms():
    plain = 1 - (2 * 1.4 / 3.8 + 2 * 1.6 / 4.2) / 2
    squared = 1 - (2 * 1.4 / 3.1 + 2 * 1.6 / 3.5) / 2
    assert DiceLoss(eps=0.0)(logits_of(PIXELS), TRUTH).item() == pytest.approx(plain, rel=1e-5)
    assert DiceLoss(squared=True, eps=0.0)(logits_of(PIXELS), TRUTH).item() == pytest.approx(squared, rel=1e-5)
    with_eps = 1 - (3.8 / 4.8 + 4.2 / 5.2) / 2
    assert DiceLoss(eps=1.0)(logits_of(PIXELS), TRUTH).item() == pytest.approx(with_eps, rel=1e-5)


def test_jaccard_and_tversky_by_hand():
    jaccard = 1 - (1.4 / (3.8 - 1.4) + 1.6 / (4.2 - 1.6)) / 2
    tversky = 1 - (1.4 / (1.4 + 0.3 * 0.4 + 0.7 * 0.6) + 1.6 / (1.6 + 0.3 * 0.6 + 0.7 * 0.4)) / 2
    assert JaccardLoss(eps=0.0)(logits_of(PIXELS), TRUTH).item() == pytest.approx(jaccard, rel=1e-5)
    assert TverskyLoss(0.3, 0.7, eps=0.0)(logits_of(PIXELS), TRUTH).item() == pytest.approx(tversky, rel=1e-5)


def test_tversky_has_dice_and_jaccard_as_special_cases():
    logits, labels = some()
    torch.testing.assert_close(TverskyLoss(0.5, 0.5, eps=0.5)(logits, labels), DiceLoss(eps=1.0)(logits, labels))
    torch.testing.assert_close(TverskyLoss(1.0, 1.0)(logits, labels), JaccardLoss()(logits, labels))


def test_classes_that_do_not_occur_count_only_where_that_is_wanted():
    """Class 1 does not occur; predicted with 1.8 pixels in all it has the overlap eps / (1.8 + eps)."""
    labels = torch.zeros_like(TRUTH)
    own = 1 - (2 * 2.2 + 1) / (2.2 + 4 + 1)
    assert DiceLoss()(logits_of(PIXELS), labels).item() == pytest.approx(own, rel=1e-5)
    both = (own + 1 - 1 / 2.8) / 2
    assert DiceLoss(present_only=False)(logits_of(PIXELS), labels).item() == pytest.approx(both, rel=1e-5)
    with pytest.raises(ValueError, match="above 0 where absent classes count"):
        JaccardLoss(eps=0.0, present_only=False)


@pytest.mark.parametrize("make", [DiceLoss, JaccardLoss, TverskyLoss, LovaszSoftmax])
def test_per_image_is_the_mean_over_images_of_equally_many_classes(make):
    logits, labels = some(8, 8)
    whole = make(per_image=True)(logits, labels)
    torch.testing.assert_close(whole, (make()(logits[:1], labels[:1]) + make()(logits[1:], labels[1:])) / 2)


def test_lovasz_softmax_by_hand():
    """Class 1, errors in order: 0.4 (a true pixel), 0.3 (a false one), 0.2 (true), 0.1 (false).

    Jaccard losses of the first 1, 2, 3, 4 errors: 1/2, 2/3, 1, 1; steps 1/2, 1/6, 1/3, 0. Class 0 in the same order:
    the false one of class 1 is a true one here and the other way round: 1/3, 2/3, 3/4, 1; steps 1/3, 1/3, 1/12, 1/4.
    """
    one = 0.4 / 2 + 0.3 / 6 + 0.2 / 3
    zero = 0.4 / 3 + 0.3 / 3 + 0.2 / 12 + 0.1 / 4
    assert LovaszSoftmax()(logits_of(PIXELS), TRUTH).item() == pytest.approx((one + zero) / 2, rel=1e-4)


def test_lovasz_softmax_of_hard_predictions_is_one_minus_the_mean_iou():
    """The extension agrees with the set function on whole sets."""
    _, labels = some(8, 9, images=3)
    _, found = some(8, 9, images=3, seed=4)
    logits = 200 * F.one_hot(found, 3).movedim(-1, 1).float()
    ious = [((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum() for k in range(3)]
    torch.testing.assert_close(LovaszSoftmax()(logits, labels), 1 - torch.stack(ious).mean())


def test_compound_loss_adds_up_what_it_is_told():
    logits, labels = some()
    parts = CrossEntropy(), DiceLoss()
    wanted = 2 * parts[0](logits, labels) + 0.5 * parts[1](logits, labels)
    torch.testing.assert_close(CompoundLoss(list(parts), [2.0, 0.5])(logits, labels), wanted)
    with pytest.raises(ValueError, match="1 weights for 2 losses"):
        CompoundLoss(list(parts), [1.0])
    with pytest.raises(ValueError, match="at least one loss"):
        CompoundLoss([])


@pytest.mark.parametrize("loss", ALL, ids=ids(ALL))
def test_one_class_is_learned_or_refused(loss):
    logits, labels = some(classes=1)
    labels[0, :2] = 255
    logits.requires_grad_()
    if loss.min_classes == 2 or isinstance(loss, CompoundLoss):
        with pytest.raises(
            ValueError, match=r"(?s)needs at least 2 classes and has 1: .*classes: \[background, object\]"
        ):
            loss(logits, labels)
    else:
        loss(logits, labels).backward()
        assert (logits.grad[1] != 0).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(class_weights=[0.0, 0.0]),
        lambda: HardPixelCrossEntropy(class_weights=[0.0]),
        lambda: PixelFocalLoss(class_weights=[0.0, 0.0]),
        lambda: PixelBCE(class_weights=[0.0, 0.0]),
        lambda: DistanceWeightedCrossEntropy(class_weights=[0.0, 0.0]),
        lambda: CompoundLoss([CrossEntropy(), DiceLoss()], [0.0, 0.0]),
        lambda: TverskyLoss(alpha=0.0, beta=0.0),
    ],
)
def test_a_loss_whose_weights_are_all_0_is_refused(make):
    with pytest.raises(ValueError, match=r"(all|both) 0"):
        make()
