"""YOLOv1: the loss worked by hand, the paper's network, what the fully connected layers refuse."""

import math

import pytest
import torch

from vertebra.errors import RecipeError
from vertebra.models import ShapeSpec
from vertebra_yolo import FastYOLOv1Backbone, YOLOv1Backbone, YOLOv1Head


def make_head(**arguments):
    arguments = {"image_size": 64, "grid": 2, "hidden": [8], "dropout": 0.0} | arguments
    return YOLOv1Head({"c6": ShapeSpec(channels=4, stride=64)}, 2, **arguments)


def values(losses):
    return {name: float(loss) for name, loss in losses.items()}


def test_the_papers_network_has_its_number_of_parameters():
    """60,155,968 in the convolutions; (7 * 7 * 1024 + 1) * 4096 and (4096 + 1) * 7 * 7 * 30 in the connected layers."""
    with torch.device("meta"):
        backbone = YOLOv1Backbone()
        head = YOLOv1Head(backbone.output_shape(), 20)
    counts = [sum(p.numel() for p in part.parameters()) for part in (backbone, head)]
    assert counts == [60_155_968, 205_524_992 + 6_022_590]
    assert sum(counts) == 271_703_550
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in backbone.modules()) == 24


def test_the_fast_network_has_nine_convolutions():
    with torch.device("meta"):
        backbone = FastYOLOv1Backbone()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in backbone.modules()) == 9
    assert backbone.output_shape() == {"c6": ShapeSpec(channels=1024, stride=64)}


def test_the_loss_worked_by_hand(truth_batch):
    """An image of 64 x 64, 2 x 2 cells; one object of 32 x 16 pixels with its center at (24, 16), in the first cell.

    As shares of the image: center (0.375, 0.25), so x = 0.75, y = 0.5 in the cell; w = 0.5, h = 0.25. The first box is
    exact but for sqrt(w) = 0.7, its IoU 0.49 / 0.5 = 0.98. The second is 0.25 x 0.25 around (0.25, 0.25): half of it
    lies in the object, IoU 0.5. So the first is responsible.
    """
    raw = torch.zeros(1, 2, 2, 12)
    raw[0, 0, 0] = torch.tensor([0.75, 0.5, 0.7, 0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.3, 0.8, 0.1])
    raw[0, 1, 1, 4] = 0.4  # a confidence where there is nothing
    raw[0, 1, 1, 10] = 0.9  # a class score there costs nothing
    losses = values(make_head().losses(raw, truth_batch([[[8, 8, 40, 24]]], [[0]], size=(64, 64))))
    assert losses == pytest.approx(
        {
            "loss_coord": 5 * (0.7 - math.sqrt(0.5)) ** 2,
            "loss_object": (0.6 - 0.98) ** 2,
            "loss_no_object": 0.5 * (0.3**2 + 0.4**2),
            "loss_cls": 0.2**2 + 0.1**2,
        },
        rel=1e-5,
    )


def test_where_no_box_overlaps_the_nearest_is_responsible(truth_batch):
    raw = torch.zeros(1, 2, 2, 12)  # boxes without area
    raw[0, 0, 0, :5] = torch.tensor([0.2, 0.2, 0.0, 0.0, 0.5])
    raw[0, 0, 0, 5:10] = torch.tensor([0.7, 0.5, 0.0, 0.0, 0.5])
    losses = values(make_head().losses(raw, truth_batch([[[8, 8, 40, 24]]], [[0]], size=(64, 64))))
    assert losses["loss_coord"] == pytest.approx(5 * (0.05**2 + 0.5 + 0.25), rel=1e-5)
    assert losses["loss_object"] == pytest.approx(0.25)  # towards an overlap of 0


def test_of_two_objects_in_a_cell_the_first_is_learned(truth_batch):
    raw = torch.rand(1, 2, 2, 12, generator=torch.Generator().manual_seed(0))
    one, other = [2, 2, 20, 20], [4, 4, 28, 28]
    head = make_head()
    both = values(head.losses(raw, truth_batch([[one, other]], [[0, 1]], size=(64, 64))))
    assert both == values(head.losses(raw, truth_batch([[one]], [[0]], size=(64, 64))))


def test_the_loss_is_the_mean_over_the_images(truth_batch):
    raw = torch.rand(2, 2, 2, 12, generator=torch.Generator().manual_seed(0))
    head, boxes = make_head(), [[[2, 2, 20, 20], [30, 30, 60, 60]], []]
    both = values(head.losses(raw, truth_batch(boxes, [[0, 1], []], size=(64, 64))))
    each = [
        values(head.losses(raw[i : i + 1], truth_batch([boxes[i]], [[0, 1][: len(boxes[i])]], size=(64, 64))))
        for i in range(2)
    ]
    for name, value in both.items():
        assert value == pytest.approx((each[0][name] + each[1][name]) / 2, rel=1e-5)


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
    head = make_head()
    raw = head({"c6": torch.randn(2, 4, 1, 1)})
    losses = head.losses(raw, truth_batch([boxes, []], size=(64, 64)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_loss_never_waits_and_needs_no_more_operators_for_more(truth_batch, random_boxes, waits_in, operators_in):
    head = make_head()
    few = truth_batch([random_boxes(3, (64, 64))] * 2, size=(64, 64))
    many = truth_batch([random_boxes(80, (64, 64))] * 6, size=(64, 64))
    raws = [torch.rand(len(batch), 2, 2, 12, requires_grad=True) for batch in (few, many)]
    assert waits_in(lambda: head.losses(raws[1], many)) == []
    assert operators_in(lambda: head.losses(raws[0], few)) == operators_in(lambda: head.losses(raws[1], many))


def test_a_perfect_answer_is_found_again(truth_batch):
    raw = torch.zeros(1, 2, 2, 12)
    raw[0, 0, 0] = torch.tensor([0.75, 0.5, math.sqrt(0.5), 0.5, 1.0] + [0.0] * 5 + [0.0, 0.9])
    batch = truth_batch([[]], size=(64, 64), originals=[(128, 192)])
    (found,) = make_head().predict(raw, batch)
    instances = found["instances"]
    torch.testing.assert_close(instances.pred_boxes.tensor, torch.tensor([[24.0, 16.0, 120.0, 48.0]]))
    assert instances.pred_classes.tolist() == [1]
    assert instances.scores.tolist() == pytest.approx([0.9])


def test_another_size_of_the_input_is_refused_with_the_reason():
    with pytest.raises(RecipeError, match=r"built for inputs of 64 x 64 pixels[\s\S]*ResizeLetterbox, size: 64"):
        make_head()({"c6": torch.zeros(1, 4, 2, 2)})


def test_smaller_images_are_padded_to_the_input():
    backbone = FastYOLOv1Backbone(image_size=128, width=0.0625)
    assert backbone.size_divisibility == 128


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must all be at least 1"):
        make_head(grid=0)
    with pytest.raises(ValueError, match="needs a feature"):
        YOLOv1Head({}, 2)
    with pytest.raises(ValueError, match="448 in the paper"):
        YOLOv1Backbone(image_size=0)
