"""RetinaNetHead: shapes, assignment, losses worked by hand, and decoding."""

import math

import pytest
import torch

from vertebra.detection import AnchorGenerator, Matcher
from vertebra.errors import DataError
from vertebra.models import Batch, ShapeSpec
from vertebra.models.losses import BinaryCrossEntropy, GIoULoss, SigmoidFocalLoss, SmoothL1Loss
from vertebra_retinanet import RetinaNetHead, RetinaNetRaw

SHAPES = {"p4": ShapeSpec(channels=8, stride=16), "p3": ShapeSpec(channels=8, stride=8)}  # not in order of stride
ANCHORS = 9


def make_head(num_classes=3, **arguments):
    torch.manual_seed(0)
    return RetinaNetHead(SHAPES, num_classes, num_convs=1, **arguments)


def features(num_images=2, height=64, width=96):
    torch.manual_seed(1)
    return {
        name: torch.randn(num_images, shape.channels, height // shape.stride, width // shape.stride)
        for name, shape in SHAPES.items()
    }


def make_batch(boxes, classes, size=(64, 96), originals=None):
    """Lists of boxes and classes per image, padded as the model pads them."""
    count, most = len(boxes), max([1, *map(len, boxes)])
    gt_boxes, gt_classes = torch.zeros(count, most, 4), torch.zeros(count, most, dtype=torch.int64)
    gt_valid = torch.zeros(count, most, dtype=torch.bool)
    for i, (some_boxes, some_classes) in enumerate(zip(boxes, classes, strict=True)):
        if some_boxes:
            gt_boxes[i, : len(some_boxes)] = torch.tensor(some_boxes)
            gt_classes[i, : len(some_classes)] = torch.tensor(some_classes)
            gt_valid[i, : len(some_boxes)] = True
    return Batch(
        images=torch.zeros(count, 3, *size),
        image_sizes=[size] * count,
        original_sizes=originals or [size] * count,
        inputs=[{}] * count,
        gt_boxes=gt_boxes,
        gt_classes=gt_classes,
        gt_valid=gt_valid,
    )


def total(losses):
    return sum(losses.values())


def test_an_untrained_head_gives_every_class_the_prior():
    scores = torch.cat([x.flatten() for x in make_head(prior_prob=0.02)(features()).logits]).sigmoid()
    assert scores.mean().item() == pytest.approx(0.02, rel=0.05)


def test_raw_maps_come_finest_first_and_hold_one_channel_for_each_anchor_and_class():
    raw = make_head(num_classes=3)(features())
    assert [tuple(x.shape) for x in raw.logits] == [(2, ANCHORS * 3, 8, 12), (2, ANCHORS * 3, 4, 6)]
    assert [tuple(x.shape) for x in raw.deltas] == [(2, ANCHORS * 4, 8, 12), (2, ANCHORS * 4, 4, 6)]


def test_anchor_edges_are_four_strides_and_two_thirds_of_an_octave_up():
    head = make_head()
    anchors = head.anchor_generator(head(features()).deltas)[0][:ANCHORS]  # the first cell of the finest level
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    torch.testing.assert_close(areas.sqrt().unique_consecutive(), areas.sqrt().unique_consecutive())
    edges = sorted({round(edge, 2) for edge in areas.sqrt().tolist()})
    assert edges == [round(32 * 2 ** (i / 3), 2) for i in range(3)]


def one_anchor_head(num_classes=2, **arguments):
    """A level of stride 32 with one 32 x 32 anchor a cell, so that the anchors tile the plane."""
    shapes = {"p5": ShapeSpec(channels=4, stride=32)}
    anchors = AnchorGenerator(sizes=[[32.0]], aspect_ratios=[[1.0]], strides=[32])
    return RetinaNetHead(shapes, num_classes, num_convs=0, anchor_generator=anchors, **arguments)


def test_losses_of_a_case_worked_by_hand():
    """Two anchors: one on a ground-truth box, one background; all logits 0, all deltas 0.1."""
    head = one_anchor_head(loss_normalizer_momentum=0.0).train()
    raw = RetinaNetRaw(logits=[torch.zeros(1, 2, 1, 2)], deltas=[torch.full((1, 4, 1, 2), 0.1)])
    anchor = head.anchor_generator(raw.deltas)[0][1]
    losses = head.losses(raw, make_batch([[anchor.tolist()]], [[1]]))
    one = 0.5**2 * math.log(2)  # at p = 1/2, before alpha: (1/2)^gamma ln 2
    assert losses["loss_cls"].item() == pytest.approx(one * 0.25 + 3 * one * 0.75)
    assert losses["loss_box_reg"].item() == pytest.approx(4 * 0.1)


def test_ignored_anchors_count_for_nothing():
    """An anchor with IoU between 0.4 and 0.5 that is not the best of its box adds neither loss nor gradient."""
    head = one_anchor_head().train()
    logits = torch.randn(1, 2, 1, 2, requires_grad=True)
    raw = RetinaNetRaw(logits=[logits], deltas=[torch.zeros(1, 4, 1, 2)])
    first, second = head.anchor_generator(raw.deltas)[0]
    box = [first[0].item(), first[1].item(), second[0].item() + 28.0, first[3].item()]  # 60 wide
    head.losses(raw, make_batch([[box]], [[0]]))["loss_cls"].backward()
    assert (logits.grad[0, :, 0, 0] != 0).all()  # IoU 32 / 60: positive
    assert (logits.grad[0, :, 0, 1] == 0).all()  # IoU 28 / 64: ignored


def test_the_box_that_no_anchor_covers_well_still_gets_its_best_anchor():
    head = make_head().train()
    raw = head(features(1))
    before = head.loss_normalizer.item()
    head.losses(raw, make_batch([[[10.0, 10.0, 14.0, 14.0]]], [[0]]))
    positives = (head.loss_normalizer.item() - 0.9 * before) / 0.1
    assert positives >= 0.99


def test_a_true_box_without_area_is_left_out():
    head = make_head().eval()
    raw = head(features(1))
    box = [8.0, 8.0, 50.0, 40.0]
    alone = head.losses(raw, make_batch([[box]], [[1]]))
    beside = head.losses(raw, make_batch([[[20.0, 20.0, 20.0, 30.0], box]], [[0, 1]]))
    assert beside == alone


def test_an_image_without_objects_is_all_background_and_trains_every_parameter():
    head = make_head().train()
    losses = head.losses(head(features()), make_batch([[], []], [[], []]))
    assert losses["loss_box_reg"].item() == 0
    assert losses["loss_cls"].item() > 0
    total(losses).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_training_without_ground_truth_says_what_is_missing():
    head = make_head()
    nothing = Batch(torch.zeros(2, 3, 64, 96), [(64, 96)] * 2, [(64, 96)] * 2, [{}, {}])
    with pytest.raises(DataError, match="no input of the batch has `instances`"):
        head.losses(head(features()), nothing)


def test_the_loss_of_a_batch_is_the_sum_of_its_images_losses():
    head = make_head().train()
    raw = head(features())
    boxes, classes = [[[8.0, 8.0, 50.0, 40.0], [40.0, 2.0, 90.0, 60.0]], [[0.0, 0.0, 33.0, 31.0]]], [[0, 2], [1]]
    head.eval()  # leaves the normalizer alone
    whole = head.losses(raw, make_batch(boxes, classes))
    for name, value in whole.items():
        parts = 0.0
        for i in range(2):
            one = RetinaNetRaw([x[i : i + 1] for x in raw.logits], [x[i : i + 1] for x in raw.deltas])
            parts += head.losses(one, make_batch([boxes[i]], [classes[i]]))[name]
        torch.testing.assert_close(value, parts)


def test_the_loss_does_not_depend_on_the_memory_layout():
    head = make_head().train()
    batch = make_batch([[[8.0, 8.0, 50.0, 40.0]], []], [[0], []])
    plain = head.eval()(features())
    last = RetinaNetRaw(*([x.contiguous(memory_format=torch.channels_last) for x in part] for part in plain))
    for name, value in head.losses(plain, batch).items():
        torch.testing.assert_close(head.losses(last, batch)[name], value)
    for a, b in zip(head.predict(plain, batch), head.predict(last, batch), strict=True):
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)


def test_normalizer_is_a_running_mean_from_100_that_survives_a_restart():
    head = make_head().train()
    raw = head(features())
    batch = make_batch([[[8.0, 8.0, 50.0, 40.0]], []], [[0], []])
    anchors = torch.cat(head.anchor_generator(raw.deltas))
    positives = int((head.matcher.match_boxes(anchors, batch.gt_boxes, batch.gt_valid) >= 0).sum())
    assert positives > 0
    head.losses(raw, batch)
    assert head.loss_normalizer.item() == pytest.approx(0.9 * 100 + 0.1 * positives)
    other = make_head()
    other.load_state_dict(head.state_dict())
    assert other.loss_normalizer.item() == head.loss_normalizer.item()
    head.eval().losses(raw, batch)
    assert other.loss_normalizer.item() == head.loss_normalizer.item()


def test_two_forwards_before_one_backward():
    """Gradient accumulation: the second update of the normalizer must not spoil the first graph."""
    head = make_head().train()
    batch = make_batch([[[8.0, 8.0, 50.0, 40.0]], []], [[0], []])
    (total(head.losses(head(features()), batch)) + total(head.losses(head(features()), batch))).backward()


@pytest.mark.parametrize("box_loss", [SmoothL1Loss(beta=0.1), GIoULoss()])
def test_box_losses_vanish_where_the_deltas_are_right(box_loss):
    head = make_head(box_loss=box_loss).train()
    raw = head(features(1))
    box = [8.0, 8.0, 50.0, 40.0]
    anchors = head.anchor_generator(raw.deltas)
    exact = [head.box_coder.get_deltas(a, torch.tensor([box]).expand(len(a), 4)) for a in anchors]
    maps = [d.view(1, *x.shape[-2:], ANCHORS * 4).permute(0, 3, 1, 2) for d, x in zip(exact, raw.deltas, strict=True)]
    batch = make_batch([[box]], [[1]])
    assert head.losses(raw, batch)["loss_box_reg"].item() > 0.01
    assert head.losses(raw._replace(deltas=maps), batch)["loss_box_reg"].item() == pytest.approx(0, abs=1e-4)


def test_any_elementwise_class_loss_fits():
    head = make_head(cls_loss=BinaryCrossEntropy(reduction="none")).train()
    batch = make_batch([[[8.0, 8.0, 50.0, 40.0]], []], [[0], []])
    focal = make_head(cls_loss=SigmoidFocalLoss(alpha=None, gamma=0.0)).train()
    raw = head(features())
    torch.testing.assert_close(head.losses(raw, batch)["loss_cls"], focal.losses(raw, batch)["loss_cls"])


def confident(head, height=64, width=96, num_images=1):
    """Maps that find nothing anywhere; tests then raise single logits."""
    raw = head(features(num_images, height, width))
    return RetinaNetRaw([torch.full_like(x, -9.0) for x in raw.logits], [torch.zeros_like(x) for x in raw.deltas])


def test_a_single_confident_anchor_comes_out_as_its_box_in_the_original_size():
    head = make_head(num_classes=3)
    raw = confident(head)
    cell, anchor, label = (2, 3), 4, 1
    raw.logits[0][0, anchor * 3 + label, cell[0], cell[1]] = 2.0
    wanted = head.anchor_generator(raw.deltas)[0].view(8, 12, ANCHORS, 4)[(*cell, anchor)]
    found = head.predict(raw, make_batch([[]], [[]], originals=[(128, 48)]))[0]["instances"]
    assert found.image_size == (128, 48)
    assert found.pred_classes.tolist() == [label]
    assert found.scores.item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    scaled = wanted * torch.tensor([0.5, 2.0, 0.5, 2.0])
    scaled = torch.stack([scaled[0::2].clamp(0, 48), scaled[1::2].clamp(0, 128)], dim=1).flatten()
    torch.testing.assert_close(found.pred_boxes.tensor[0], scaled)


def test_of_overlapping_boxes_of_a_class_the_best_stays_and_other_classes_are_left():
    head = make_head(num_classes=3)
    raw = confident(head)
    for label, logit, anchor in [(0, 1.0, 4), (0, 3.0, 4), (2, 2.0, 4)]:
        raw.logits[0][0, anchor * 3 + label, 4, 6] = logit
    raw.logits[0][0, 4 * 3 + 0, 4, 7] = 1.5  # the neighbor: 8 of about 40 pixels further, IoU above 0.5
    found = head.predict(raw, make_batch([[]], [[]]))[0]["instances"]
    assert list(zip(found.pred_classes.tolist(), [round(s, 3) for s in found.scores.tolist()], strict=True)) == [
        (0, 0.953),
        (2, 0.881),
    ]


def test_boxes_outside_the_image_are_dropped_and_nothing_found_is_no_error():
    head = make_head(num_classes=3)
    raw = confident(head)
    assert len(head.predict(raw, make_batch([[]], [[]]))[0]["instances"]) == 0
    raw.logits[0][0, 0, 0, 0] = 3.0
    raw.deltas[0][0, 0, 0, 0] = -50.0  # far to the left
    assert len(head.predict(raw, make_batch([[]], [[]]))[0]["instances"]) == 0


def test_at_most_max_detections_of_at_most_topk_candidates():
    torch.manual_seed(3)
    raw_logits = [torch.randn(2, ANCHORS * 3, 8, 12), torch.randn(2, ANCHORS * 3, 4, 6)]
    deltas = [torch.zeros(2, ANCHORS * 4, 8, 12), torch.zeros(2, ANCHORS * 4, 4, 6)]
    batch = make_batch([[], []], [[], []])
    found = make_head(max_detections=7).predict(RetinaNetRaw(raw_logits, deltas), batch)
    assert [len(one["instances"]) for one in found] == [7, 7]
    found = make_head(topk_candidates=2, nms_threshold=1.0).predict(RetinaNetRaw(raw_logits, deltas), batch)
    for i, one in enumerate(found):
        best = sorted(v for x in raw_logits for v in x[i].flatten().topk(2).values.sigmoid().tolist())
        assert sorted(one["instances"].scores.tolist()) == pytest.approx(best)


def test_levels_must_be_as_wide_as_each_other():
    shapes = {"res3": ShapeSpec(512, 8), "res4": ShapeSpec(1024, 16)}
    with pytest.raises(ValueError, match=r"same number of channels, got .*Put a neck \(FPN\)"):
        RetinaNetHead(shapes, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 0}, "at least one class"),
        ({"prior_prob": 1.0}, "prior_prob is 1.0"),
        ({"num_convs": -1}, "num_convs is -1"),
        ({"norm": "batch"}, "norm is 'batch'; it must be one of"),
        ({"cls_loss": SigmoidFocalLoss(reduction="mean")}, "SigmoidFocalLoss needs reduction 'none', not 'mean'"),
        ({"box_loss": GIoULoss(reduction="sum")}, "GIoULoss needs reduction 'none'"),
        (
            {"anchor_generator": AnchorGenerator(sizes=[[32.0]], aspect_ratios=[[1.0]], strides=[8])},
            r"anchor generator makes \[1\] anchors per cell.* each of the levels p3, p4",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        RetinaNetHead(SHAPES, **({"num_classes": 3} | arguments))


def test_a_matcher_without_low_quality_matches_can_leave_a_box_out():
    matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=False)
    head = make_head(matcher=matcher).train()
    losses = head.losses(head(features(1)), make_batch([[[10.0, 10.0, 14.0, 14.0]]], [[0]]))
    assert losses["loss_box_reg"].item() == 0


def test_group_norm_follows_each_tower_convolution():
    head = RetinaNetHead({"p3": ShapeSpec(channels=64, stride=8)}, 3, num_convs=2, norm="gn")
    assert [type(layer).__name__ for layer in head.cls_subnet] == ["Conv2d", "GroupNorm", "ReLU"] * 2


def test_batch_statistics_are_kept_level_by_level():
    head = make_head(norm="bn").train()
    shifted = {name: x + (10 if name == "p4" else 0) for name, x in features().items()}
    head(shifted)
    norms = head.cls_subnet[1]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean, atol=0.05)
    alone = RetinaNetHead({"p4": SHAPES["p4"]}, 3, num_convs=1, norm="bn").train()
    state = {
        name.replace(".1.1.", ".1.0."): v
        for name, v in make_head(norm="bn").state_dict().items()
        if ".1.0." not in name
    }
    alone.load_state_dict(state)
    torch.testing.assert_close(alone({"p4": shifted["p4"]}).logits[0], make_head(norm="bn")(shifted).logits[1])
