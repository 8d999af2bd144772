"""YOLOv2: the loss worked by hand, the passthrough, the network's size."""

import math

import pytest
import torch

from vertebra.models import ShapeSpec
from vertebra_yolo import Darknet19, YOLOv2Head, YOLOv2Neck
from vertebra_yolo.v2_neck import cells_to_channels

ANCHORS = [(32, 32), (16, 48)]


def make_head(**arguments):
    arguments = {"anchors": ANCHORS, "warm_images": 0} | arguments
    return YOLOv2Head({"p5": ShapeSpec(channels=4, stride=32)}, 2, **arguments)


def values(losses):
    return {name: float(loss) for name, loss in losses.items()}


def test_the_network_for_coco_has_darknets_number_of_parameters():
    """yolov2.weights holds 50,983,561 numbers; 20,672 of them are batch normalization's means and variances."""
    with torch.device("meta"):
        backbone = Darknet19()
        neck = YOLOv2Neck(backbone.output_shape())
        head = YOLOv2Head(neck.output_shape(), 80)
    parts = (backbone, neck, head)
    assert sum(p.numel() for part in parts for p in part.parameters()) == 50_962_889
    statistics = [b.numel() for part in parts for name, b in part.named_buffers() if "running_" in name]
    assert sum(statistics) == 20_672


def test_the_loss_worked_by_hand(truth_batch):
    """64 x 64 pixels, 2 x 2 cells, two anchors; the network answers 0 everywhere. An object of 16 x 16 around (40, 12).

    Its shape's IoU is 256 / 1024 with the first anchor and 256 / 768 with the second, which is responsible, in the cell
    (1, 0): place (0.25, 0.375) there, log scales 0 and ln(1/3). The box predicted there is 16 x 48 around (48, 16); it
    shares 8 x 16 with the object: IoU 128 / 896. No other box overlaps it by more than 0.6. Cross entropy with a
    probability of 1/2 is ln 2 whatever the target.
    """
    losses = values(
        make_head().losses(torch.zeros(1, 14, 2, 2), truth_batch([[[32, 4, 48, 20]]], [[1]], size=(64, 64)))
    )
    assert losses == pytest.approx(
        {
            "loss_box": (2 * math.log(2) + 0.5 * math.log(1 / 3) ** 2) * (2 - 256 / 4096),
            "loss_objectness": (5 + 7) * math.log(2),
            "loss_cls": math.log(2),
        },
        rel=1e-5,
    )


def test_gradients_are_prediction_less_target(truth_batch):
    raw = torch.zeros(1, 14, 2, 2, requires_grad=True)
    sum(make_head().losses(raw, truth_batch([[[32, 4, 48, 20]]], [[1]], size=(64, 64))).values()).backward()
    factor = 2 - 256 / 4096
    expected = [0.25 * factor, 0.125 * factor, 0, math.log(3) * factor, 5 * (0.5 - 128 / 896), 0.5, -0.5]
    assert raw.grad[0, 7:, 0, 1].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_prediction_that_overlaps_a_true_box_well_has_no_loss(truth_batch):
    """The object is 2 pixels from a prediction of the cell beside the one that is responsible."""
    raw = torch.zeros(1, 14, 2, 2)
    raw[0, 0, 0, 0] = 50.0  # the first cell's first anchor is moved to its right edge: center (32, 16)
    batch = truth_batch([[[18, 0, 50, 32]]], [[0]], size=(64, 64))  # center (34, 16), in the second cell
    head = make_head()
    before = float(head.losses(raw, batch)["loss_objectness"])
    raw[0, 4, 0, 0] = 3.0  # very sure there: would cost, were it not ignored (IoU 30 / 34)
    assert float(head.losses(raw, batch)["loss_objectness"]) == pytest.approx(before)
    assert float(make_head(ignore_threshold=0.95).losses(raw, batch)["loss_objectness"]) > before + 0.3


def test_while_warm_rows_without_an_object_are_drawn_to_their_anchors(truth_batch):
    head = make_head(warm_images=3).train()
    raw = torch.zeros(2, 14, 2, 2)
    raw[:, 2] = 1.0  # log scale of the first anchor's width, in all 8 cells
    batch = truth_batch([[], []], size=(64, 64))
    pulls = [float(head.losses(raw, batch)["loss_box"]) for _ in range(3)]
    expected = 0.01 * (16 * 2 * math.log(2) + 8 * 0.5) / 2  # 16 rows in two images
    assert pulls == pytest.approx([expected, expected, 0])
    assert int(head.state_dict()["images_seen"]) == 6
    head.eval().losses(raw, batch)
    assert int(head.images_seen) == 6


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
def test_any_boxes_give_finite_losses_and_gradients(boxes, truth_batch):
    head = make_head(warm_images=100)
    raw = head({"p5": torch.randn(2, 4, 2, 2)})
    losses = head.losses(raw, truth_batch([boxes, []], size=(64, 64)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_loss_waits_once_and_needs_no_more_operators_for_more(truth_batch, random_boxes, waits_in, operators_in):
    head = make_head()
    few = truth_batch([random_boxes(3, (64, 64))] * 2, size=(64, 64))
    many = truth_batch([random_boxes(80, (64, 64))] * 6, size=(64, 64))
    raws = [torch.zeros(len(batch), 14, 2, 2, requires_grad=True) for batch in (few, many)]
    assert waits_in(lambda: head.losses(raws[1], many)) == ["nonzero"]
    assert operators_in(lambda: head.losses(raws[0], few)) == operators_in(lambda: head.losses(raws[1], many))


def test_scores_are_objectness_times_softmax(truth_batch):
    raw = torch.full((1, 14, 2, 2), -20.0)
    raw[0, :4, 1, 0] = 0.0  # the first anchor in the middle of cell (0, 1)
    raw[0, 4:7, 1, 0] = torch.tensor([0.0, 2.0, 1.0])  # objectness 0.5
    (found,) = make_head(score_threshold=0.1).predict(raw, truth_batch([[]], size=(64, 64)))
    instances = found["instances"]
    assert instances.pred_boxes.tensor.tolist() == [[0, 32, 32, 64]] * 2
    assert instances.pred_classes.tolist() == [0, 1]
    share = 1 / (1 + math.exp(-1.0))
    assert instances.scores.tolist() == pytest.approx([0.5 * share, 0.5 * (1 - share)])


def test_the_passthrough_stacks_neighboring_cells():
    x = torch.arange(2 * 4 * 4 * 6).view(2, 4, 4, 6)
    moved = cells_to_channels(x)
    assert moved.shape == (2, 16, 2, 3)
    assert sorted(moved[1, :4, 1, 2].tolist()) == sorted(x[1, 0, 2:, 4:].flatten().tolist())


def test_darknets_order_is_that_of_its_layer():
    """Its index arithmetic, number by number: output element (k, j, i) of a (C, H, W) map comes from the same memory
    regarded as (C / 4, 2H, 2W), channel k % (C / 4), row 2 j + (k // (C / 4)) // 2, column 2 i + (k // (C / 4)) % 2."""
    c, h, w = 8, 4, 6
    x = torch.randperm(c * h * w).view(1, c, h, w)
    memory, expected = x.flatten().tolist(), []
    for k in range(c):
        offset, channel = divmod(k, c // 4)
        for j in range(h):
            for i in range(w):
                column, row = 2 * i + offset % 2, 2 * j + offset // 2
                expected.append(memory[column + 2 * w * (row + 2 * h * channel)])
    result = cells_to_channels(x, darknet=True)
    assert result.shape == (1, 4 * c, h // 2, w // 2)
    assert result.flatten().tolist() == expected


def test_several_levels_are_refused():
    spec = ShapeSpec(channels=4, stride=32)
    with pytest.raises(ValueError, match="takes one level, got p4, p5"):
        YOLOv2Head({"p4": spec, "p5": spec}, 2)
    with pytest.raises(ValueError, match="takes two features"):
        YOLOv2Neck({"c5": spec})
