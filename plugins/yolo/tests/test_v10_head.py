"""YOLOv10Head: sizes, two branches, losses, what a training step waits for, and predictions without NMS."""

import pytest
import torch

from vertebra import build_model, load_recipe
from vertebra.errors import DataError
from vertebra.models import ShapeSpec, fuse_conv_bn
from vertebra.models.losses import L1Loss
from vertebra_yolo import YOLOv10Head, v10_head
from vertebra_yolo.v10_blocks import PSA, LargeKernel

SHAPES = {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in (4, 3, 5)}  # not in order of stride
SIZE = (64, 96)
PAPER = {"n": 2.3, "s": 7.2, "m": 15.4, "b": 19.1, "l": 24.4}  # millions, arXiv:2405.14458, table 1


def make_head(num_classes=3, **arguments):
    torch.manual_seed(0)
    return YOLOv10Head(SHAPES, num_classes, **arguments)


def features(num_images=2, size=SIZE):
    torch.manual_seed(1)
    return {
        name: torch.randn(num_images, 16, size[0] // shape.stride, size[1] // shape.stride)
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("size", PAPER)
def test_every_size_has_the_papers_parameters(size):
    """Those of the network that predicts: without the one-to-many branch. The paper rounds s down."""
    with torch.device("meta"):
        model = build_model(load_recipe(f"yolo:yolov10{size}"), 80)
    count = sum(p.numel() for name, p in model.named_parameters() if ".many." not in name) / 1e6
    assert count == pytest.approx(PAPER[size], abs=0.08)


def test_only_the_one_to_many_branch_teaches_the_features(truth_batch, random_boxes):
    head, maps = make_head(), {name: x.requires_grad_() for name, x in features().items()}
    losses = head.losses(head(maps), truth_batch([random_boxes(3), random_boxes(5)]))
    assert set(losses) == {"many_box", "many_cls", "many_dfl", "one_box", "one_cls", "one_dfl"}
    one = sum(loss for name, loss in losses.items() if name.startswith("one"))
    assert torch.autograd.grad(one, list(maps.values()), allow_unused=True, retain_graph=True) == (None, None, None)
    many = sum(loss for name, loss in losses.items() if name.startswith("many"))
    assert all(gradient is not None for gradient in torch.autograd.grad(many, list(maps.values())))


def test_both_branches_start_alike_and_only_one_predicts():
    head = make_head()
    raw = head(features())
    for one, many in zip((*raw.one.boxes, *raw.one.logits), (*raw.many.boxes, *raw.many.logits), strict=True):
        assert torch.equal(one, many)
    assert head.eval()(features()).many is None


def test_perfect_predictions_cost_little(truth_batch):
    """One object of 64 x 32 pixels about the center of a cell of stride 16: box sides 2 and 1 cells from it."""
    head = make_head(num_classes=2, scale_by_batch=False)
    logits = [torch.full((1, 2, 64 // s, 96 // s), -20.0) for s in (8, 16, 32)]
    boxes = [torch.zeros(1, 64, 64 // s, 96 // s) for s in (8, 16, 32)]
    for bin in (2, 16 + 1, 32 + 2, 48 + 1):
        boxes[1][0, bin, 1, 2] = 50.0
    logits[1][0, 1, 1, 2] = 20.0
    raw = head(features(1))._replace(many=None)
    raw = raw._replace(one=raw.one._replace(boxes=boxes, logits=logits))
    box = [2.5 * 16 - 32, 1.5 * 16 - 16, 2.5 * 16 + 32, 1.5 * 16 + 16]
    losses = head.losses(raw, truth_batch([[box]], [[1]]))
    assert all(loss.item() < 1e-3 for loss in losses.values()), losses
    wrong = head.losses(raw, truth_batch([[box]], [[0]]))
    assert wrong["one_cls"].item() > 1
    found = head.predict(raw, truth_batch([[]]))[0]["instances"]
    torch.testing.assert_close(found.pred_boxes.tensor[:1], torch.tensor([box]).clamp(min=0), atol=1e-3, rtol=0)
    assert found.pred_classes[0] == 1 and found.scores[0] > 0.999


def test_a_step_waits_once_a_branch_for_the_device_whatever_is_in_the_images(waits_in, truth_batch, random_boxes):
    for boxes in ([random_boxes(9), random_boxes(2), []], [[], [], []], [random_boxes(500, smallest=1.0)] * 3):
        head = make_head()
        waits = waits_in(lambda boxes=boxes, head=head: head.losses(head(features(3)), truth_batch(boxes)))
        assert waits == ["nonzero", "nonzero"]


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
    head = make_head()
    losses = head.losses(head(features()), truth_batch([boxes, []]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_at_most_so_many_detections_best_first(truth_batch):
    head = make_head(max_detections=7, score_threshold=0.0).eval()
    found = head.predict(head(features(1)), truth_batch([[]]))[0]["instances"]
    assert 0 < len(found) <= 7
    assert (found.scores[:-1] >= found.scores[1:]).all()


def test_what_fills_up_a_graph_for_any_size_is_no_detection(top_values_of_any_size):
    head = make_head(score_threshold=0.0).eval()
    with torch.no_grad():
        raw = head(features(1))
        raw.one.logits[-1][..., -1, -1] += 20.0  # the last cell has the highest score, and is repeated
        expected = head.export_predictions(raw, SIZE)
        top_values_of_any_size(v10_head)
        found = head.export_predictions(raw, SIZE)
    assert sum(x[0, 0].numel() for x in raw.one.logits) < head.max_detections
    assert (expected["scores"] > 0.9).sum() == head.num_classes
    for name in expected:  # further down some have equal scores and no order
        torch.testing.assert_close(found[name][:, :20], expected[name][:, :20])
    torch.testing.assert_close(found["scores"], expected["scores"])


def test_folding_joins_the_two_kernels_and_changes_nothing():
    torch.manual_seed(0)
    block = torch.nn.Sequential(LargeKernel(8), PSA(8))
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        before = block.eval()(x)
        after = fuse_conv_bn(block)(x)
    assert block[0].small is None
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in block.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_mistakes_are_told(truth_batch):
    with pytest.raises(ValueError, match="num_bins of at least 2"):
        make_head(num_bins=1)
    with pytest.raises(ValueError, match="reduction 'none'"):
        make_head(box_loss=L1Loss(reduction="sum"))
    batch = truth_batch([[]])
    batch.gt_valid = None
    head = make_head()
    with pytest.raises(DataError, match="need the key `annotations`"):
        head.losses(head(features(1)), batch)
