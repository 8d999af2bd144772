"""YOLOv3: the loss worked by hand, the networks' sizes, the head on other features."""

import math

import pytest
import torch

from vertebra.models import ShapeSpec
from vertebra.models.losses import CIoULoss, SigmoidFocalLoss
from vertebra_yolo import Darknet53, TinyDarknet, YOLOv3Head, YOLOv3Neck, YOLOv3TinyNeck

ANCHORS = [[(32, 32), (16, 48)]]


def make_head(**arguments):
    return YOLOv3Head({"p5": ShapeSpec(channels=4, stride=32)}, 2, **({"anchors": ANCHORS} | arguments))


def values(losses):
    return {name: float(loss) for name, loss in losses.items()}


@pytest.mark.parametrize(
    ("backbone", "neck", "count"),
    [(Darknet53, YOLOv3Neck, 61_949_149), (TinyDarknet, YOLOv3TinyNeck, 8_852_366)],
    ids=["yolov3", "yolov3-tiny"],
)
def test_the_network_for_coco_has_darknets_number_of_parameters(backbone, neck, count):
    with torch.device("meta"):
        backbone = backbone()
        neck = neck(backbone.output_shape())
        head = YOLOv3Head(neck.output_shape(), 80)
    assert sum(p.numel() for part in (backbone, neck, head) for p in part.parameters()) == count


def test_darknet53_has_52_convolutions_without_its_classifier():
    with torch.device("meta"):
        backbone = Darknet53()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in backbone.modules()) == 52


def test_the_loss_worked_by_hand(truth_batch):
    """As for YOLOv2: 2 x 2 cells, two anchors, answers of 0; an object of 16 x 16 around (40, 12) goes to the second
    anchor of cell (1, 0): place (0.25, 0.375), log scales 0 and ln(1/3). Cross entropy with a probability of 1/2 is
    ln 2 whatever the target: on 2 places, 8 objectnesses, 2 classes.
    """
    losses = values(
        make_head().losses([torch.zeros(1, 14, 2, 2)], truth_batch([[[32, 4, 48, 20]]], [[1]], size=(64, 64)))
    )
    assert losses == pytest.approx(
        {
            "loss_box": (2 * math.log(2) + 0.5 * math.log(1 / 3) ** 2) * (2 - 256 / 4096),
            "loss_objectness": 8 * math.log(2),
            "loss_cls": 2 * math.log(2),
        },
        rel=1e-5,
    )


def test_gradients_pull_towards_the_object(truth_batch):
    """Of cross entropy and half the squared error: prediction less target, as Darknet's layer [yolo] writes them."""
    raw = torch.zeros(1, 14, 2, 2, requires_grad=True)
    sum(make_head().losses([raw], truth_batch([[[32, 4, 48, 20]]], [[1]], size=(64, 64))).values()).backward()
    factor = 2 - 256 / 4096
    expected = [0.25 * factor, 0.125 * factor, 0, math.log(3) * factor, 0.5 - 1, 0.5, 0.5 - 1]
    assert raw.grad[0, 7:, 0, 1].tolist() == pytest.approx(expected, rel=1e-5)
    assert raw.grad[0, :4].abs().sum() == 0  # the first anchor has objectness alone


def test_a_prediction_that_overlaps_a_true_box_well_is_ignored(truth_batch):
    raw = torch.zeros(1, 14, 2, 2)
    raw[0, 0, 0, 0] = 50.0  # the first cell's first anchor is moved to its right edge: center (32, 16)
    batch = truth_batch([[[18, 0, 50, 32]]], [[0]], size=(64, 64))  # center (34, 16), in the second cell; IoU 30 / 34
    assert float(make_head().losses([raw], batch)["loss_objectness"]) == pytest.approx(7 * math.log(2), rel=1e-5)
    strict = make_head(ignore_threshold=0.95)
    assert float(strict.losses([raw], batch)["loss_objectness"]) == pytest.approx(8 * math.log(2), rel=1e-5)


def test_two_objects_on_one_row_share_it(truth_batch):
    """The last one's place is learned, the classes of both: they are independent."""
    raw = torch.zeros(1, 14, 2, 2, requires_grad=True)
    one, other = [0, 0, 30, 30], [1, 1, 31, 31]
    head = make_head()
    losses = head.losses([raw], truth_batch([[one, other]], [[0, 1]], size=(64, 64)))
    alone = head.losses([raw], truth_batch([[other]], [[1]], size=(64, 64)))
    assert losses["loss_box"].item() == pytest.approx(alone["loss_box"].item())
    losses["loss_cls"].backward()
    assert raw.grad[0, 5:7, 0, 0].tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    "boxes",
    [
        [[10, 10, 11, 11]],
        [[-500, -500, 900, 900]],
        [[64, 64, 64, 64]],
        [],
        [[i % 50, i % 40, 64, 64] for i in range(500)],
    ],
    ids=["one pixel", "larger than the image", "no area", "none", "500"],
)
@pytest.mark.parametrize("box_loss", [None, CIoULoss()], ids=["paper", "CIoU"])
def test_any_boxes_give_finite_losses_and_gradients(boxes, box_loss, truth_batch):
    head = make_head(pair_threshold=0.3, box_loss=box_loss)
    raw = head({"p5": torch.randn(2, 4, 2, 2)})
    losses = head.losses(raw, truth_batch([boxes, []], size=(64, 64)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_loss_waits_once_and_needs_no_more_operators_for_more(truth_batch, random_boxes, waits_in, operators_in):
    head = make_head(pair_threshold=0.5)
    few = truth_batch([random_boxes(3, (64, 64))] * 2, size=(64, 64))
    many = truth_batch([random_boxes(80, (64, 64))] * 6, size=(64, 64))
    raws = [torch.zeros(len(batch), 14, 2, 2, requires_grad=True) for batch in (few, many)]
    assert waits_in(lambda: head.losses([raws[1]], many)) == ["nonzero"]
    assert operators_in(lambda: head.losses([raws[0]], few)) == operators_in(lambda: head.losses([raws[1]], many))


def test_a_box_may_have_several_classes(truth_batch):
    raw = torch.full((1, 14, 2, 2), -20.0)
    raw[0, :4, 1, 0] = 0.0  # the first anchor in the middle of cell (0, 1)
    raw[0, 4:7, 1, 0] = torch.tensor([0.0, 2.0, 1.0])  # objectness 0.5
    (found,) = make_head(score_threshold=0.1).predict([raw], truth_batch([[]], size=(64, 64)))
    instances = found["instances"]
    assert instances.pred_boxes.tensor.tolist() == [[0, 32, 32, 64]] * 2
    expected = [0.5 / (1 + math.exp(-2.0)), 0.5 / (1 + math.exp(-1.0))]
    assert instances.scores.tolist() == pytest.approx(expected)


def test_an_untrained_head_is_as_unsure_as_it_is_told():
    head = make_head(prior_prob=0.02)
    raw = head({"p5": torch.zeros(1, 4, 2, 2)})[0]
    assert raw[:, [4, 11]].sigmoid().flatten().tolist() == pytest.approx([0.02] * 8)


def test_the_head_takes_other_features_and_losses(truth_batch, random_boxes):
    shapes = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in (5, 3, 4)}  # as an FPN gives them, in any order
    head = YOLOv3Head(shapes, 3, box_loss=CIoULoss(), objectness_loss=SigmoidFocalLoss())
    features = {name: torch.randn(2, 8, 64 // spec.stride, 96 // spec.stride) for name, spec in shapes.items()}
    raw = head(features)
    assert [tuple(level.shape) for level in raw] == [(2, 24, 8, 12), (2, 24, 4, 6), (2, 24, 2, 3)]
    losses = head.losses(raw, truth_batch([random_boxes(5), []]))
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


def test_anchors_that_do_not_fit_are_refused():
    one, four = ({f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in range(2, 2 + n)} for n in (1, 4))
    with pytest.raises(ValueError, match=r"own anchors for 2 or 3 levels.*p2, p3, p4, p5.*vertebra yolo anchors"):
        YOLOv3Head(four, 3)
    with pytest.raises(ValueError, match=r"2 lists of anchors for 1 levels \(p2\)"):
        YOLOv3Head(one, 3, anchors=[[(1, 2)], [(3, 4)]])
    with pytest.raises(ValueError, match=r"expected .width, height. above 0"):
        YOLOv3Head(one, 3, anchors=[[(1, 0)]])
    with pytest.raises(ValueError, match="needs reduction 'none'"):
        YOLOv3Head(one, 3, anchors=[[(1, 2)]], box_loss=CIoULoss(reduction="mean"))


def test_no_maximum_of_candidates_gives_every_pair():
    head = make_head()
    head.topk_candidates = None
    assert head.candidates([torch.randn(1, 14, 3, 2)]).scores.shape == (1, 3 * 2 * 2 * 2)  # cells, anchors, classes
