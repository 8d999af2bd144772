"""YOLOv5Head: decoding, losses worked by hand, what a training step waits for, and odd ground truth."""

import math

import pytest
import torch

from vertebra.errors import DataError
from vertebra.models import ShapeSpec
from vertebra.models.losses import SmoothL1Loss
from vertebra_yolo import YOLOv5Head, v5_head

SHAPES = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in (4, 3, 5)}  # not in order of stride
SIZE = (64, 96)


def make_head(num_classes=3, **arguments):
    torch.manual_seed(0)
    return YOLOv5Head(SHAPES, num_classes, **arguments)


def make_raw(num_images=2, num_classes=3, value=None, size=SIZE):
    torch.manual_seed(1)
    shapes = [(num_images, 3 * (5 + num_classes), size[0] // s, size[1] // s) for s in (8, 16, 32)]
    return [torch.randn(shape) if value is None else torch.full(shape, float(value)) for shape in shapes]


def logit(p):
    return math.log(p / (1 - p))


def write(raw, level, image, anchor, x, y, values, num_classes=3):
    """Puts x, y, w, h, objectness, classes at one anchor of one cell."""
    width = 5 + num_classes
    raw[level][image, anchor * width : (anchor + 1) * width, y, x] = torch.tensor(values)


def test_an_untrained_head_expects_few_objects():
    raw = make_head(num_classes=80)({name: torch.zeros(1, 8, 4, 4) for name in SHAPES})
    for x, stride in zip(raw, (8, 16, 32), strict=True):
        objectness = x.view(1, 3, 85, 4, 4)[:, :, 4].sigmoid()
        assert objectness.mean().item() == pytest.approx(8 / (640 / stride) ** 2, rel=0.5)


def test_a_box_is_decoded_as_published(truth_batch):
    head, raw = make_head(), make_raw(1, value=-20.0)
    # sigmoids 0.5, 0.75, 0.25, 0.5 in cell (2, 1) of stride 16, anchor 62 x 45
    write(raw, 1, 0, 1, 2, 1, [0.0, logit(0.75), logit(0.25), 0.0, logit(0.9), logit(0.8), -20.0, -20.0])
    found = head.predict(raw, truth_batch([[]], originals=[SIZE]))[0]["instances"]
    assert len(found) == 1 and found.pred_classes.tolist() == [0]
    assert found.scores.item() == pytest.approx(0.72, abs=1e-5)
    x, y = (2 + 0.5) * 16, (1 + 1.0) * 16
    wide, high = 62 * 0.25, 45.0
    wanted = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
    torch.testing.assert_close(found.pred_boxes.tensor[0], torch.tensor(wanted))


def test_predictions_take_the_size_of_the_original(truth_batch):
    head, raw = make_head(), make_raw(1, value=-20.0)
    write(raw, 0, 0, 0, 4, 4, [0.0, 0.0, 0.0, 0.0, 9.0, 9.0, -20.0, -20.0])
    small = head.predict(raw, truth_batch([[]], originals=[SIZE]))[0]["instances"]
    large = head.predict(raw, truth_batch([[]], originals=[(128, 288)]))[0]["instances"]
    assert large.image_size == (128, 288)
    torch.testing.assert_close(large.pred_boxes.tensor, small.pred_boxes.tensor * torch.tensor([3.0, 2.0, 3.0, 2.0]))


def test_the_raw_export_has_the_layout_that_is_known(truth_batch):
    head = make_head(num_classes=80)
    raw = make_raw(1, 80, size=(640, 640))
    output = head.export_raw(raw, (640, 640))["output"]
    assert output.shape == (1, 25200, 85)
    assert output[..., 4:].min() >= 0 and output[..., 4:].max() <= 1
    best = int((output[0, :, 4:5] * output[0, :, 5:]).amax(dim=1).argmax())
    cx, cy, w, h = output[0, best, :4]
    found = head.predict(raw, truth_batch([[]], size=(640, 640)))[0]["instances"]
    box = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)).clamp(0, 640)
    torch.testing.assert_close(found.pred_boxes.tensor[0], box, rtol=1e-4, atol=1e-3)
    assert found.scores[0].item() == pytest.approx((output[0, best, 4] * output[0, best, 5:].max()).item())


def test_losses_of_one_object_worked_by_hand(truth_batch):
    """One object that fits one anchor of one cell alone, predicted exactly except for its class and objectness."""
    anchors = [[[1.0, 1.0]], [[32.0, 32.0]], [[900.0, 900.0]]]
    head = make_head(num_classes=2, anchors=anchors)
    shapes = [(1, 7, 8, 12), (1, 7, 4, 6), (1, 7, 2, 3)]
    raw = [torch.zeros(shape) for shape in shapes]  # objectness 0.5 everywhere
    raw[1][0, :, 1, 2] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, logit(0.9), logit(0.2)])
    box = [(2 + 0.5) * 16 - 16, 1.5 * 16 - 16, 2.5 * 16 + 16, 1.5 * 16 + 16]  # the middle of cell (2, 1), 32 x 32
    losses = head.losses(raw, truth_batch([[box]], [[0]]))
    assert losses["loss_box"].item() == pytest.approx(0.0, abs=1e-5)
    cls = (-math.log(0.9) - math.log(0.8)) / 2
    assert losses["loss_cls"].item() == pytest.approx(cls * 0.5 * 2 / 80, rel=1e-4)
    objectness = math.log(2) * (4.0 + 1.0 + 0.4)  # the target does not matter where the logit is 0
    assert losses["loss_obj"].item() == pytest.approx(objectness * 64 * 96 / 640**2, rel=1e-4)


def test_objectness_learns_the_overlap_and_of_two_claims_the_better(truth_batch):
    anchors = [[[1.0, 1.0]], [[32.0, 32.0]], [[900.0, 900.0]]]
    head = make_head(num_classes=1, anchors=anchors, obj_gain=640**2 / (64 * 96), balance=[0.0, 24.0, 0.0])
    box = torch.tensor([24.0, 8.0, 56.0, 40.0])  # what cell (2, 1) predicts from zeros
    worse = box + torch.tensor([0.0, 0.0, -16.0, 0.0])  # half of it: IoU 0.5, center in the same cell? (32, 24): yes
    for order in ([box, worse], [worse, box]):
        raw = [torch.zeros(1, 6, 8, 12), torch.zeros(1, 6, 4, 6), torch.zeros(1, 6, 2, 3)]
        raw[1].requires_grad_()
        head.losses(raw, truth_batch([torch.stack(order)]))["loss_obj"].backward()
        slope = raw[1].grad[0, 4, 1, 2].item()  # sigmoid(0) - target, as 24 cells are averaged and weighed 24
        assert slope == pytest.approx(0.5 - 1.0, abs=1e-4)


def test_gains_go_with_classes_size_and_images(truth_batch, random_boxes):
    boxes = random_boxes(4)
    one = make_head(scale_by_batch=False).losses(make_raw(2), truth_batch([boxes, boxes]))
    both = make_head().losses(make_raw(2), truth_batch([boxes, boxes]))
    for name in one:
        torch.testing.assert_close(both[name], one[name] * 2)


def test_a_step_waits_twice_for_the_device_whatever_is_in_the_images(waits_in, truth_batch, random_boxes):
    for boxes in ([random_boxes(9), random_boxes(2), []], [[], [], []], [random_boxes(500, smallest=1.0)] * 3):
        raw = [x.requires_grad_() for x in make_raw(3)]
        waits = waits_in(lambda raw=raw, boxes=boxes: make_head().losses(raw, truth_batch(boxes)))
        assert sorted(waits) == ["nonzero", "tolist"]


@pytest.mark.parametrize(
    "boxes",
    [
        [[10, 10, 11, 11]],  # one pixel
        [[-50, -50, 400, 300]],  # larger than the image
        [[10, 10, 10, 30], [5, 5, 5, 5]],  # without area
        [[0, 0, 96, 64]] * 500,
        [],
    ],
)
def test_odd_ground_truth_gives_finite_losses_and_gradients(truth_batch, boxes):
    raw = [x.requires_grad_() for x in make_raw(2)]
    losses = make_head().losses(raw, truth_batch([boxes, []]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(x.grad).all() for x in raw)


def test_an_object_of_one_pixel_is_nobodys_by_the_ratio_rule(truth_batch):
    losses = make_head().losses(make_raw(1), truth_batch([[[10, 10, 11, 11]]]))
    assert losses["loss_box"].item() == 0  # the smallest anchor is 10 times as wide: as published


def test_boxes_of_other_classes_survive_unless_asked(truth_batch):
    raw = make_raw(1, value=-20.0)
    write(raw, 0, 0, 0, 4, 4, [0.0, 0.0, 0.0, 0.0, 9.0, 9.0, 8.0, -20.0])
    batch = truth_batch([[]])
    assert sorted(make_head().predict(raw, batch)[0]["instances"].pred_classes.tolist()) == [0, 1]
    agnostic = make_head(class_agnostic_nms=True).predict(raw, batch)[0]["instances"]
    assert agnostic.pred_classes.tolist() == [0]


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="3 levels, but anchors for 2"):
        make_head(anchors=[[[1.0, 2.0]], [[3.0, 4.0]]])
    with pytest.raises(ValueError, match="same number"):
        make_head(anchors=[[[1.0, 2.0]], [[3.0, 4.0]], [[3.0, 4.0], [5.0, 6.0]]])
    with pytest.raises(ValueError, match="at least one class"):
        make_head(num_classes=0)
    with pytest.raises(ValueError, match="balance has 1 values"):
        make_head(balance=[1.0])
    with pytest.raises(ValueError, match="reduction 'none'"):
        make_head(box_loss=SmoothL1Loss(reduction="mean"))


def test_a_batch_without_ground_truth_is_told(truth_batch):
    batch = truth_batch([[]])
    batch.gt_valid = None
    with pytest.raises(DataError, match="need the key `annotations`"):
        make_head().losses(make_raw(1), batch)


def test_what_fills_up_a_graph_for_any_size_is_no_candidate(truth_batch, top_values_of_any_size):
    head = make_head(topk_candidates=30, score_threshold=0.0, nms_threshold=1.0)
    raw = [torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) for x in make_raw(1)]
    raw[2][..., -1, -1] += 3.0  # the last cell of the coarsest level, which has 18 anchors, has the highest score
    expected = head.export_predictions(raw, SIZE)
    top_values_of_any_size(v5_head)
    found = head.export_predictions(raw, SIZE)
    assert (expected["scores"] > 0).sum() > 50
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_no_maximum_of_candidates_gives_every_pair():
    head, raw = make_head(), make_raw(1)
    head.topk_candidates = None
    assert head.candidates(raw).scores.shape[1] == sum(x.shape[2] * x.shape[3] * 3 * 3 for x in raw)
