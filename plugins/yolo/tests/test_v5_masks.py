"""YOLOv5Head with a mask branch: what changes beside it, masks in the original size, losses, what it waits for."""

import pytest
import torch
from torch.nn import functional as F

from vertebra import build_model, load_recipe
from vertebra.models import ShapeSpec
from vertebra.structures import Boxes, Instances, PolygonMasks
from vertebra.testing.inputs import make_input
from vertebra_yolo import PrototypeMasks, YOLOv5Head
from vertebra_yolo import prototypes as module
from vertebra_yolo.prototypes import MaskedRaw

SHAPES = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in (4, 3, 5)}  # not in order of stride
SIZE = (64, 96)


def make_head(num_prototypes=2, **arguments):
    torch.manual_seed(0)
    masks = PrototypeMasks(SHAPES, num_prototypes=num_prototypes, channels=8)
    return YOLOv5Head(SHAPES, 3, masks=masks, **arguments)


def make_features(num_images=2, size=SIZE):
    torch.manual_seed(1)
    return {n: torch.randn(num_images, 8, size[0] // s.stride, size[1] // s.stride) for n, s in SHAPES.items()}


def make_raw(level=1, x=2, y=1, anchor=1, value=(9.0, -9.0)):
    """One certain detection of class 0: the anchor itself, with the middle of its cell; prototypes left and right."""
    shapes = [(SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32)]
    maps = [torch.full((1, 24, *shape), -20.0) for shape in shapes]
    maps[level][0, anchor * 8 : (anchor + 1) * 8, y, x] = torch.tensor([0.0, 0, 0, 0, 9.0, 9.0, -20.0, -20.0])
    coefficients = [torch.zeros(1, 6, *shape) for shape in shapes]
    coefficients[level][0, anchor * 2 : (anchor + 1) * 2, y, x] = torch.tensor(value)
    prototypes = torch.zeros(1, 2, 16, 24)
    prototypes[:, 0, :, :10], prototypes[:, 1, :, 10:] = 20.0, 20.0  # meet at x = 40
    return MaskedRaw(maps, coefficients, prototypes)


def give_masks(batch, boxes):
    """The boxes themselves as masks."""
    batch.inputs = []
    for some in boxes:
        tensor = torch.as_tensor(some, dtype=torch.float32).view(-1, 4)
        shapes = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in tensor.tolist()]
        instances = Instances(SIZE, gt_boxes=Boxes(tensor), gt_masks=PolygonMasks(shapes))
        batch.inputs.append({"instances": instances})
    return batch


def test_without_masks_there_is_nothing_of_them():
    plain = YOLOv5Head(SHAPES, 3)
    assert list(plain.state_dict()) == [f"predict_maps.{i}.{name}" for i in range(3) for name in ("weight", "bias")]
    assert all(isinstance(x, torch.Tensor) for x in plain(make_features()))
    own = [name for name in make_head().state_dict() if not name.startswith(("masks.", "coefficients."))]
    assert own == list(plain.state_dict())


def test_boxes_are_those_of_the_same_head_without_masks(truth_batch):
    head, plain = make_head(), YOLOv5Head(SHAPES, 3)
    plain.load_state_dict(head.state_dict(), strict=False)
    features, batch = make_features(), truth_batch([[], []], originals=[SIZE, (50, 50)])
    with torch.no_grad():
        ours, theirs = head.predict(head.eval()(features), batch), plain.predict(plain.eval()(features), batch)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one["instances"]) > 0
        assert torch.equal(one["instances"].pred_boxes.tensor, other["instances"].pred_boxes.tensor)
        assert torch.equal(one["instances"].scores, other["instances"].scores)
        assert one["instances"].pred_masks.shape == (len(one["instances"]), *one["instances"].image_size)
        assert not other["instances"].has("pred_masks")


@pytest.mark.parametrize(("level", "x", "y", "anchor"), [(0, 5, 3, 2), (1, 2, 1, 1), (2, 1, 0, 0)])
def test_a_detection_takes_the_coefficients_of_its_own_anchor(truth_batch, level, x, y, anchor):
    found = make_head().predict(make_raw(level, x, y, anchor), truth_batch([[]], originals=[SIZE]))[0]["instances"]
    assert len(found) == 1
    x0, y0, x1, y1 = found.pred_boxes.tensor[0].tolist()
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[int(y0) : int(-(-y1 // 1)), int(x0) : min(int(-(-x1 // 1)), 40)] = True
    assert x0 < 40 < x1 and torch.equal(found.pred_masks[0], expected)


def test_masks_take_the_size_of_the_original_without_the_padding(truth_batch):
    """An image of 64 x 80 pixels, padded to 64 x 96, requested three times as wide and twice as high."""
    batch = truth_batch([[]], originals=[(128, 240)])
    batch.image_sizes = [(64, 80)]
    found = make_head().predict(make_raw(), batch)[0]["instances"]
    x0, y0, x1, y1 = found.pred_boxes.tensor[0].tolist()
    expected = torch.zeros(128, 240, dtype=torch.bool)
    expected[int(y0) : int(-(-y1 // 1)), int(x0) : 120] = True  # the prototypes meet at 40 * 3
    assert x0 < 120 < x1 and torch.equal(found.pred_masks[0], expected)


def test_the_raw_export_has_what_masks_are_made_of(truth_batch):
    raw = make_raw(level=0, x=5, y=3, anchor=2)
    outputs = make_head().export_raw(raw, SIZE)
    assert list(outputs) == ["output", "mask_weights", "prototypes"]
    best = int(outputs["output"][0, :, 4].argmax())
    assert outputs["mask_weights"].shape == (1, outputs["output"].shape[1], 2)
    mask = (outputs["mask_weights"][0, best] @ outputs["prototypes"][0].flatten(1)).sigmoid().view(1, 1, 16, 24)
    whole = F.interpolate(mask, size=SIZE, mode="bilinear", align_corners=False)[0, 0] >= 0.5
    found = make_head().predict(raw, truth_batch([[]], originals=[SIZE]))[0]["instances"]
    x0, y0, x1, y1 = (int(v) for v in found.pred_boxes.tensor[0].tolist())
    assert torch.equal(found.pred_masks[0][y0 + 1 : y1, x0 + 1 : x1], whole[y0 + 1 : y1, x0 + 1 : x1])
    assert set(make_head().export_predictions(raw, SIZE)) == {"boxes", "scores", "classes"}


def test_a_step_waits_twice_for_the_device_as_without_masks(waits_in, truth_batch, random_boxes, monkeypatch):
    for boxes in ([random_boxes(9), random_boxes(2), []], [[], [], []], [random_boxes(500, smallest=1.0)] * 3):
        batch = truth_batch(boxes)
        masks = torch.rand(*batch.gt_valid.shape, 16, 24) > 0.5
        monkeypatch.setattr(module, "mask_cells", lambda *_, masks=masks: masks)  # drawn in the CPU's memory
        head = make_head()
        raw = head(make_features(3))
        waits = waits_in(lambda head=head, raw=raw, batch=batch: head.losses(raw, batch))
        assert sorted(waits) == ["nonzero", "tolist"]


@pytest.mark.parametrize(
    "boxes",
    [
        [[10, 10, 11, 11]],  # one pixel
        [[-50, -50, 400, 300]],  # larger than the image
        [[0, 0, 96, 64]] * 300,
        [],
    ],
)
def test_odd_ground_truth_gives_finite_losses_and_a_gradient_for_every_parameter(truth_batch, boxes):
    head = make_head()
    losses = head.losses(head(make_features()), give_masks(truth_batch([boxes, []]), [boxes, []]))
    assert set(losses) == {"loss_box", "loss_obj", "loss_cls", "loss_mask"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_mask_loss_counts_as_often_as_there_are_images(truth_batch, random_boxes):
    boxes = [random_boxes(4, smallest=12.0)] * 2
    one = make_head(scale_by_batch=False)
    both = make_head()
    raw = [head(make_features()) for head in (one, both)]
    losses = [head.losses(x, give_masks(truth_batch(boxes), boxes)) for head, x in zip((one, both), raw, strict=True)]
    assert losses[0]["loss_mask"] > 0
    torch.testing.assert_close(losses[1]["loss_mask"], losses[0]["loss_mask"] * 2)


def test_the_recipes_model_learns_masks():
    """A few steps on two images bring the mask loss down, and masks overlap the objects."""
    torch.manual_seed(0)
    model = build_model(load_recipe("yolo:yolov5n_masks_shapes_quick"), 3)
    inputs = [make_input(seed, SIZE, edge=(20, 40)) for seed in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(25):
        losses = model.train()(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append(losses["boxes/loss_mask"].item())
    assert sum(values[-3:]) < 0.6 * sum(values[:3])
