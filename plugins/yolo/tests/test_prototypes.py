"""PrototypeMasks by itself: masks and losses worked by hand, what a step waits for, and how much memory it takes."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vertebra.errors import DataError
from vertebra.models import Batch, ShapeSpec
from vertebra.models.losses import BinaryCrossEntropy
from vertebra.structures import BitMasks, Boxes, Instances, PolygonMasks
from vertebra_yolo import prototypes as module
from vertebra_yolo.prototypes import MaskPairs, PrototypeMasks, mask_cells

SHAPES = {"p4": ShapeSpec(channels=6, stride=16), "p3": ShapeSpec(channels=4, stride=8)}
SIZE = (8, 12)  # pixels: 2 x 3 cells of stride 4


def make_part(**arguments):
    torch.manual_seed(0)
    return PrototypeMasks(SHAPES, **{"num_prototypes": 2, "channels": 8, **arguments})


def square(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def make_batch(boxes, masks, size=SIZE):
    """Images with boxes (lists of xyxy) and masks (PolygonMasks or BitMasks, None for none)."""
    most = max([1, *map(len, boxes)])
    gt_boxes, gt_valid = torch.zeros(len(boxes), most, 4), torch.zeros(len(boxes), most, dtype=torch.bool)
    inputs = []
    for row, (some, own) in enumerate(zip(boxes, masks, strict=True)):
        instances = Instances(size, gt_boxes=Boxes(torch.tensor(some).view(-1, 4)))
        gt_boxes[row, : len(some)] = instances.gt_boxes.tensor
        gt_valid[row, : len(some)] = True
        if own is not None:
            instances.gt_masks = own
        inputs.append({"instances": instances})
    sizes = [size] * len(boxes)
    return Batch(
        torch.zeros(len(boxes), 3, *size),
        sizes,
        sizes,
        inputs,
        gt_boxes=gt_boxes,
        gt_classes=gt_valid.long(),
        gt_valid=gt_valid,
    )


def make_pairs(coefficients, image, row):
    image = torch.tensor(image, dtype=torch.int64)
    most = int(image.bincount().max()) if len(image) else 0
    return MaskPairs(torch.as_tensor(coefficients), image, torch.tensor(row, dtype=torch.int64), most)


def softplus(x):
    return math.log1p(math.exp(x))


def test_prototypes_lie_on_a_finer_grid_than_their_level_and_are_never_negative():
    features = {"p3": torch.randn(2, 4, 5, 6), "p4": torch.randn(2, 6, 3, 3)}
    part = make_part()
    found = part(features)
    assert found.shape == (2, 2, 10, 12) and part.stride == 4
    assert (found >= 0).all() and (found > 0).any()
    coarse = make_part(in_feature="p4", upsample=1)
    assert coarse(features).shape == (2, 2, 3, 3) and coarse.stride == 16


def test_a_mask_is_the_sigmoid_of_the_weighted_sum_within_its_box():
    prototypes = torch.zeros(2, 4, 6)  # stride 4: 16 x 24 pixels
    prototypes[0, :, :3] = 20.0
    prototypes[1, :, 3:] = 20.0
    boxes = torch.tensor([[4.0, 4.0, 20.0, 12.0], [0.0, 0.0, 24.0, 16.0], [0.0, 0.0, 24.0, 16.0]])
    coefficients = torch.tensor([[9.0, -9.0], [-9.0, 9.0], [-9.0, -9.0]])
    found = Instances((16, 24), pred_boxes=Boxes(boxes), details=coefficients)
    make_part().finish(found, prototypes, (16.0, 24.0))
    expected = torch.zeros(3, 16, 24, dtype=torch.bool)
    expected[0, 4:12, 4:12] = True  # left half and box
    expected[1, :, 12:] = True  # right half
    assert torch.equal(found.pred_masks, expected)
    assert not found.has("details")


def test_the_threshold_is_a_probability():
    prototypes, box = torch.ones(1, 2, 2), torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    probability = 1 / (1 + math.exp(-math.tanh(0.5)))  # 0.6135
    for threshold, filled in ((probability - 0.01, True), (probability + 0.01, False)):
        found = Instances((8, 8), pred_boxes=Boxes(box), details=torch.tensor([[0.5]]))
        make_part(num_prototypes=1, threshold=threshold).finish(found, prototypes, (8.0, 8.0))
        assert found.pred_masks.all().item() == filled and found.pred_masks.any().item() == filled


def test_the_loss_worked_by_hand():
    """Two objects of four cells and of one; what lies outside a box does not count."""
    prototypes = torch.ones(1, 1, 2, 3)
    prototypes[..., 2] = 100.0
    batch = make_batch([[[0.0, 0, 8, 8], [4.0, 4, 8, 8]]], [PolygonMasks([square(0, 0, 4, 8), square(4, 4, 8, 8)])])
    pairs = make_pairs([[0.3], [-0.7]], [0, 0], [0, 1])
    first, second = math.tanh(0.3), math.tanh(-0.7)
    large = (2 * softplus(-first) + 2 * softplus(first)) / 4  # the left two cells are the object's
    small = softplus(-second)
    loss = make_part(num_prototypes=1, loss_weight=0.5).losses(prototypes, pairs, batch)["loss_mask"]
    assert loss.item() == pytest.approx((large + small) / 2 * 0.5, rel=1e-5)


def test_pairs_find_their_image_and_object():
    """In any order; images with different numbers of pairs, one without any."""
    prototypes = torch.stack([torch.full((1, 2, 3), value) for value in (1.0, 5.0, 2.0)])
    whole, left = square(0, 0, 12, 8), square(0, 0, 4, 8)
    box = [0.0, 0, 12, 8]
    batch = make_batch([[box, box], [], [box]], [PolygonMasks([whole, left]), None, PolygonMasks([whole])])
    pairs = make_pairs([[0.1], [0.2], [0.3], [0.4]], [2, 0, 0, 0], [0, 1, 0, 1])
    x = [math.tanh(v) for v in (0.1, 0.2, 0.3, 0.4)]
    partly = [(softplus(-v) + 2 * softplus(v)) / 3 for v in x]
    expected = (softplus(-2 * x[0]) + partly[1] + softplus(-x[2]) + partly[3]) / 4
    loss = make_part(num_prototypes=1, loss_weight=1.0).losses(prototypes, pairs, batch)["loss_mask"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_bitmaps_and_polygons_teach_the_same():
    prototypes = torch.rand(1, 2, 2, 3)
    shapes = [square(0, 0, 4, 8), square(4, 0, 12, 4)]
    boxes, pairs = [[0.0, 0, 8, 8], [4.0, 0, 12, 4]], make_pairs(torch.randn(2, 2), [0, 0], [1, 0])
    polygons = PolygonMasks(shapes)
    losses = [
        make_part().losses(prototypes, pairs, make_batch([boxes], [masks]))["loss_mask"]
        for masks in (polygons, BitMasks.from_polygon_masks(polygons, *SIZE))
    ]
    assert losses[0] == losses[1]


def test_an_object_whose_mask_has_no_cell_teaches_nothing():
    """It has none at all, or it is a single pixel; the others count as if it did not exist."""
    prototypes = torch.rand(1, 2, 2, 3)
    boxes = [[0.0, 0, 8, 8], [5.0, 5, 6, 6], [0.0, 0, 12, 8]]
    pixels = torch.zeros(3, *SIZE, dtype=torch.bool)
    pixels[0, :, :4] = True
    pixels[1, 5, 5] = True
    coefficients = torch.randn(3, 2, requires_grad=True)
    batch = make_batch([boxes], [BitMasks(pixels)])
    loss = make_part().losses(prototypes, make_pairs(coefficients, [0, 0, 0], [0, 1, 2]), batch)["loss_mask"]
    alone = make_part().losses(prototypes, make_pairs(coefficients[:1], [0], [0]), batch)["loss_mask"]
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert coefficients.grad[0].abs().min() > 0 and not coefficients.grad[1:].any()


@pytest.mark.parametrize("boxes", [[[], []], [[[0.0, 0, 8, 8]], []]])
def test_without_pairs_the_loss_is_a_zero_that_has_gradients(boxes):
    prototypes = torch.rand(2, 2, 2, 3, requires_grad=True)
    coefficients = torch.zeros(0, 2, requires_grad=True)
    masks = [PolygonMasks([square(0, 0, 4, 4)] * len(some)) for some in boxes]
    loss = make_part().losses(prototypes, make_pairs(coefficients, [], []), make_batch(boxes, masks))["loss_mask"]
    loss.backward()
    assert loss.item() == 0 and not prototypes.grad.any() and coefficients.grad is not None


def test_objects_without_masks_are_told():
    batch = make_batch([[[0.0, 0, 8, 8]]], [None])
    batch.inputs[0]["file_name"] = "street.png"
    with pytest.raises(DataError, match=r"street\.png\): has objects but no gt_masks"):
        mask_cells(batch, 4, (2, 3))


def test_masks_are_drawn_without_asking_the_device():
    """A tensor on `meta` has no values: whatever looked at them would raise."""
    batch = make_batch([[[0.0, 0, 8, 8]], []], [PolygonMasks([square(0, 0, 8, 8)]), None])
    batch.gt_valid = batch.gt_valid.to("meta")
    assert mask_cells(batch, 4, (2, 3)).shape == (2, 1, 2, 3)


def test_of_too_many_pairs_some_are_drawn():
    index, used = module._by_image(make_pairs(torch.zeros(7, 1), [1, 0, 1, 1, 1, 0, 1], [0] * 7), 3, 9)
    assert index[used].tolist() == [1, 5, 0, 2, 3, 4, 6]
    assert used.sum(dim=1).tolist() == [2, 5, 0]
    torch.manual_seed(0)
    seen = set()
    for _ in range(30):
        index, used = module._by_image(make_pairs(torch.zeros(7, 1), [1, 0, 1, 1, 1, 0, 1], [0] * 7), 3, 3)
        assert index.shape == (3, 3) and used.sum(dim=1).tolist() == [2, 3, 0]
        assert sorted(index[0][used[0]].tolist()) == [1, 5]
        assert len(set(index[1].tolist())) == 3
        seen |= set(index[1].tolist())
    assert seen == {0, 2, 3, 4, 6}  # each has its turn


def test_the_loss_waits_for_nothing_and_has_no_loop_over_images_or_pairs(waits_in, operators_in, monkeypatch):
    calls = []
    for images, each in ((2, 3), (5, 150)):
        masks = torch.rand(images, each, 2, 3) > 0.3
        monkeypatch.setattr(module, "mask_cells", lambda *_, masks=masks: masks)  # drawn in the CPU's memory
        boxes = [[[0.0, 0, 8, 8]] * each] * images
        batch = make_batch(boxes, [None] * images)
        image = [i for i in range(images) for _ in range(each)]
        pairs = make_pairs(torch.randn(len(image), 2, requires_grad=True), image, list(range(each)) * images)
        prototypes = torch.rand(images, 2, 2, 3, requires_grad=True)
        part = make_part(max_pairs=150)

        def losses(part=part, prototypes=prototypes, pairs=pairs, batch=batch):
            return part.losses(prototypes, pairs, batch)

        assert waits_in(losses) == []
        calls.append(operators_in(losses))
    assert calls[0] == calls[1]


class _LargestFloat(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        found = function(*arguments, **(options or {}))
        if isinstance(found, torch.Tensor) and found.is_floating_point():
            self.numel = max(self.numel, found.numel())
        return found


def test_many_detections_take_no_more_memory_than_a_few(monkeypatch, random_boxes):
    """300 detections: next to the result there is never more than the limit, and the result is the same."""
    prototypes, coefficients = torch.rand(2, 16, 24), torch.randn(300, 2)
    results = []
    for limit in (2**30, 5 * 64 * 96):
        monkeypatch.setattr(module, "MAX_VALUES", limit)
        found = Instances((64, 96), pred_boxes=Boxes(random_boxes(300)), details=coefficients)
        with _LargestFloat() as largest:
            make_part().finish(found, prototypes, (64.0, 96.0))
        results.append((found.pred_masks, largest.numel))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == 300 * 16 * 24
    assert results[1][1] <= 64 * 96


def test_nothing_found_has_no_masks():
    found = Instances((9, 7), pred_boxes=Boxes(torch.zeros(0, 4)), details=torch.zeros(0, 2))
    make_part().finish(found, torch.rand(2, 4, 4), (9.0, 7.0))
    assert found.pred_masks.shape == (0, 9, 7) and found.pred_masks.dtype == torch.bool


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="in_feature names 'p2', but the features are p4, p3"):
        make_part(in_feature="p2")
    with pytest.raises(ValueError, match="upsample is 3; it must divide 8, the stride of p3"):
        make_part(upsample=3)
    with pytest.raises(ValueError, match="of at least 1"):
        make_part(num_prototypes=0)
    with pytest.raises(ValueError, match="threshold is 1"):
        make_part(threshold=1.0)
    with pytest.raises(ValueError, match="reduction 'none'"):
        make_part(loss=BinaryCrossEntropy(reduction="mean"))
