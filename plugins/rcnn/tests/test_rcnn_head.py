"""RCNNHead and its parts: what is drawn, matched, pooled and answered, and the images that are easily forgotten."""

import pytest
import torch

from vertebra.config import load_recipe
from vertebra.detection import BACKGROUND, IGNORE, Suppression
from vertebra.errors import DataError
from vertebra.models import ShapeSpec, build_model
from vertebra.structures import BitMasks, Boxes, Instances, PolygonMasks, decode_rle
from vertebra.testing.inputs import make_input, make_metadata
from vertebra_rcnn import (
    RPN,
    CascadeBoxes,
    FastRCNNConvFCHead,
    OrderedSampler,
    RandomSampler,
    RCNNHead,
    Res5,
    RFCNBoxes,
    ROIBoxes,
    ROIMasks,
    ROIPool,
    ROIPooler,
    SharedBoxFeatures,
    Truth,
)
from vertebra_rcnn.detections import select_detections

PYRAMID = {f"p{level}": ShapeSpec(channels=8, stride=2**level) for level in range(2, 7)}
SMALL = FastRCNNConvFCHead(num_fc=1, fc_dim=16)


def make_model(recipe="rcnn:mask_rcnn_shapes_quick", overrides=()):
    torch.manual_seed(0)
    return build_model(load_recipe(recipe, list(overrides)), 3, make_metadata(3), pretrained=False)


def finite_step(model, inputs):
    losses = model.train()(inputs)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("sampler", [RandomSampler, OrderedSampler])
def test_samplers_draw_so_many_and_never_an_ignored_one(sampler):
    matched = torch.full((2, 1000), BACKGROUND)
    matched[0, :300] = 2  # more positives than may be drawn
    matched[1, :10] = 0
    matched[:, 500:900] = IGNORE
    index, positive, valid = sampler(64, 0.25)(matched)
    assert valid.sum(dim=1).tolist() == [64, 64]
    assert positive.sum(dim=1).tolist() == [16, 10]
    for row in range(2):
        drawn = index[row][valid[row]]
        assert len(set(drawn.tolist())) == 64
        assert (matched[row, drawn] != IGNORE).all()
        assert ((matched[row, index[row]] >= 0) & valid[row]).tolist() == positive[row].tolist()


@pytest.mark.parametrize("sampler", [RandomSampler, OrderedSampler])
def test_samplers_take_what_there_is(sampler):
    matched = torch.tensor([[0, BACKGROUND, IGNORE], [IGNORE, IGNORE, IGNORE]])
    drawn = sampler(64, 0.5)(matched)
    assert drawn.valid.sum(dim=1).tolist() == [2, 0]
    assert drawn.positive.sum(dim=1).tolist() == [1, 0]


def test_random_sampler_takes_every_candidate_equally_often():
    torch.manual_seed(0)
    counts = torch.zeros(20)
    for _ in range(400):
        index, _, valid = RandomSampler(10, 0.5)(torch.full((1, 20), BACKGROUND))
        counts[index[valid]] += 1
    assert counts.min() > 150 and counts.max() < 250  # 200 expected, 10 standard deviations are 100


def test_boxes_go_to_the_level_of_their_size():
    pooler = ROIPooler(PYRAMID, 7)
    assert pooler.in_features == ["p2", "p3", "p4", "p5"]
    sides = torch.tensor([1.0, 111, 113, 223, 225, 449, 2000])
    boxes = torch.stack((0 * sides, 0 * sides, sides, sides), dim=1)
    assert pooler.levels_of(boxes).tolist() == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("operator", [None, ROIPool()])
def test_pooling_from_several_levels_keeps_the_order_of_the_regions(operator):
    pooler = ROIPooler(PYRAMID, 3, operator=operator)
    features = {
        name: torch.full((2, 8, 256 // s.stride, 256 // s.stride), float(s.stride)) for name, s in PYRAMID.items()
    }
    rois = torch.tensor([[1.0, 0, 0, 250, 250], [0, 10, 10, 40, 40], [1, 5, 5, 130, 130], [0, 9, 9, 20, 20]])
    assert pooler(features, rois).flatten(1).mean(dim=1).tolist() == [16, 4, 8, 4]


def test_a_single_stage_of_the_cascade_answers_as_a_class_agnostic_box_branch_does():
    torch.manual_seed(1)
    plain = ROIBoxes(PYRAMID, 5, head=SMALL, class_agnostic=True)
    cascade = CascadeBoxes(PYRAMID, 5, head=SMALL, ious=[0.5])
    cascade.stages[0].head.load_state_dict(plain.head.state_dict())
    cascade.stages[0].predictor.load_state_dict(plain.predictor.state_dict())
    features = {name: torch.randn(2, 8, 128 // s.stride, 128 // s.stride) for name, s in PYRAMID.items()}
    rois = torch.tensor([[0.0, 4, 4, 60, 50], [1, 20, 30, 100, 90], [1, 0, 0, 128, 128]])
    sizes = torch.full((2, 2), 128.0)
    for one, other in zip(plain.predict(features, rois, sizes), cascade.predict(features, rois, sizes), strict=True):
        torch.testing.assert_close(one, other)


def test_later_stages_of_the_cascade_ask_for_a_higher_overlap():
    """A box that no stage moves holds an object at IoU 0.5 and not at 0.6."""
    cascade = CascadeBoxes(PYRAMID, 2, head=SMALL, ious=[0.5, 0.6])
    for stage in cascade.stages:
        torch.nn.init.zeros_(stage.predictor.bbox_pred.weight)
    truth = Truth(
        torch.tensor([[[0.0, 0, 100, 100]]]), torch.tensor([[1]]), torch.tensor([[True]]), torch.tensor([[128, 128]])
    )
    head = RCNNHead(PYRAMID, 2, boxes=cascade, sampler=RandomSampler(8, 1.0), append_truth=False)
    proposals = _proposals([[0.0, 0, 100, 55], [0, 0, 100, 65]])
    regions = head.sample(proposals, truth)
    assert sorted(regions.classes.tolist()) == [1, 1]
    deltas = torch.zeros(2, 4)
    refined = cascade._refined(cascade.stages[0], deltas, regions, truth, cascade.matchers[1])
    found = {tuple(box): label for box, label in zip(refined.boxes.tolist(), refined.classes.tolist(), strict=True)}
    assert found == {(0, 0, 100, 55): 2, (0, 0, 100, 65): 1}


def test_position_sensitive_scores_come_from_the_cells_own_maps():
    branch = RFCNBoxes({"res5": ShapeSpec(channels=4, stride=16)}, 1, channels=0, bins=2)
    maps = torch.zeros(1, 2 * 4, 8, 8)
    maps[0, 4:8] = torch.tensor([1.0, 2, 3, 4])[:, None, None]  # background's four maps
    features = {"rfcn_scores": maps, "rfcn_deltas": torch.zeros(1, 16, 8, 8)}
    logits, _ = branch._answers(features, torch.tensor([[0.0, 0, 0, 100, 100]]))
    torch.testing.assert_close(logits, torch.tensor([[0.0, 2.5]]))


def test_detections_are_clipped_and_suppressed_within_their_class():
    boxes = torch.tensor([[[0.0, 0, 50, 50]], [[1, 1, 51, 51]], [[80, 80, 130, 130]], [[float("nan"), 0, 1, 1]]])
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.7], [0.3, 0.01], [0.9, 0.9]])
    found = select_detections(
        scores,
        boxes,
        torch.tensor([0, 0, 0, 0]),
        [(100, 100), (90, 90)],
        Suppression(0.05, None, 0.5, max_detections=10),
    )
    assert found[0].scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert found[0].pred_classes.tolist() == [0, 1, 0]
    assert found[0].pred_boxes.tensor[2].tolist() == [80, 80, 100, 100]
    assert len(found[1]) == 0


def test_a_mask_needs_only_the_map_of_its_class():
    branch = ROIMasks(PYRAMID, 4, num_conv=1, conv_dim=8)
    torch.nn.init.normal_(branch.predictor.weight)
    torch.nn.init.normal_(branch.predictor.bias)
    seen, classes = torch.randn(5, 8, 14, 14), torch.tensor([3, 0, 2, 2, 1])
    every = branch.predictor(branch.hidden(seen))  # (5, 4, 28, 28)
    torch.testing.assert_close(branch.logits(seen, classes), every[torch.arange(5), classes])


@pytest.mark.parametrize("overrides", [(), ("model.heads.objects.masks.output=RunLengthOutput",)])
def test_masks_come_in_the_original_size_as_pixels_or_as_run_lengths(overrides):
    model = make_model(overrides=(*overrides, "model.heads.objects.score_threshold=0.0")).eval()
    with torch.no_grad():
        found = model([{"image": make_input(0)["image"], "height": 90, "width": 200}])[0]["instances"]
    assert len(found)
    masks = [decode_rle(mask) for mask in found.pred_masks] if overrides else found.pred_masks.numpy()
    assert {mask.shape for mask in masks} == {(90, 200)}


def test_both_outputs_hold_the_same_masks():
    results = []
    for output in ("BitmapOutput", "RunLengthOutput"):
        overrides = (f"model.heads.objects.masks.output={output}", "model.heads.objects.score_threshold=0.0")
        model = make_model(overrides=overrides).eval()
        with torch.no_grad():
            results.append(model([{"image": make_input(0)["image"], "height": 90, "width": 200}])[0]["instances"])
    pixels, runs = results
    assert all(
        (one.numpy() == decode_rle(other)).all() for one, other in zip(pixels.pred_masks, runs.pred_masks, strict=True)
    )


def test_images_without_objects_with_three_hundred_and_with_one_pixel():
    model = make_model()
    nothing = finite_step(model, [make_input(0, objects=0)])
    assert nothing["objects/loss_box_reg"] == nothing["objects/loss_mask"] == nothing["objects/loss_rpn_loc"] == 0
    many = finite_step(model, [make_input(1, objects=300, edge=(4, 20)), make_input(2, objects=0)])
    assert many["objects/loss_mask"] > 0
    finite_step(model, [make_input(3, objects=5, edge=(1, 1))])


def test_a_picture_of_crowds_alone_is_one_without_objects(tmp_path):
    from vertebra.data.mapper import Mapper

    image = tmp_path / "crowd.png"
    _write_png(image, make_input(0)["image"])
    crowd = {"bbox": [5, 5, 50, 40], "bbox_mode": 1, "category_id": 0, "iscrowd": 1}
    crowd["segmentation"] = [[5.0, 5, 55, 5, 55, 45]]
    record = {"file_name": str(image), "height": 64, "width": 96, "image_id": 1, "annotations": [crowd]}
    mapped = Mapper([], training=True, metadata=make_metadata(3), fields={"segmentation"})(record)
    assert len(mapped["instances"]) == 0
    losses = finite_step(make_model(), [mapped])
    assert losses["objects/loss_mask"] == 0


def test_an_empty_mask_teaches_that_nothing_of_the_box_is_object():
    model = make_model()
    sample = make_input(0)
    sample["instances"].gt_masks = BitMasks(torch.zeros(3, 64, 96))
    assert finite_step(model, [sample])["objects/loss_mask"] == pytest.approx(0.6931, abs=0.01)  # logits near 0


def test_polygons_and_bitmaps_of_the_same_masks_give_nearly_the_same_loss():
    losses = []
    for kind in ("polygon", "bitmask"):
        torch.manual_seed(3)
        sample = make_input(0, mask_format=kind)
        assert isinstance(sample["instances"].gt_masks, PolygonMasks if kind == "polygon" else BitMasks)
        model = make_model()
        torch.nn.init.normal_(model.heads["objects"].masks.predictor.weight, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(4)
        losses.append(finite_step(model, [sample])["objects/loss_mask"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_batch_without_truth_is_named():
    model = make_model()
    with pytest.raises(DataError, match="learns from ground-truth boxes"):
        model.train()([{"image": make_input(0)["image"]}])


def test_objects_without_masks_are_named():
    model = make_model()
    sample = make_input(0)
    sample["instances"].remove("gt_masks")
    with pytest.raises(DataError, match="has objects but no gt_masks"):
        model.train()([sample])


@pytest.mark.parametrize("loss", ["GIoULoss", "CIoULoss", "DIoULoss", "IoULoss"])
def test_box_losses_on_boxes(loss):
    overrides = [
        "model.heads.objects.boxes={name: ROIBoxes, class_agnostic: true}",
        "model.heads.objects.boxes.head={name: FastRCNNConvFCHead, fc_dim: 16}",
        f"model.heads.objects.boxes.box_loss={loss}",
        f"model.heads.objects.proposals.box_loss={loss}",
    ]
    assert finite_step(make_model(overrides=overrides), [make_input(0)])["objects/loss_box_reg"] > 0


def test_masks_of_the_c4_form_learn_from_the_maps_that_the_boxes_learn_from():
    overrides = [
        "model.neck=null",
        "model.backbone.out_features=[res4]",
        "model.heads.objects.proposals={name: RPN, anchor_generator: {sizes: [[16, 32]], strides: [16]}}",
        "model.heads.objects.boxes={name: ROIBoxes, head: {name: Res5, depth: 18, norm: bn}}",
        "model.heads.objects.boxes.pooler={name: ROIPooler, resolution: 4}",
        "model.heads.objects.masks={name: ROIMasks, num_conv: 0, conv_dim: 8}",
        "model.heads.objects.masks.pooler={name: SharedBoxFeatures, channels: 512, resolution: 2}",
    ]
    model = make_model(overrides=overrides)
    head = model.heads["objects"]
    made, seen = [], []
    head.boxes.head.register_forward_hook(lambda module, args, maps: made.append(maps))
    head.masks.losses = lambda maps, regions, batch: seen.append((maps, regions)) or {}
    model.train()([make_input(0), make_input(1)])
    ((maps,), ((taken, regions),)) = made, seen  # the last stage ran once, over all regions
    assert 0 < len(taken) == len(regions.rois) < len(maps)
    assert all((maps == one).flatten(1).all(dim=1).any() for one in taken)


def test_a_box_branch_with_losses_of_its_own_is_not_passed_over():
    class Own(ROIBoxes):
        def losses(self, features, regions, truth):
            return {}

    one = {"res4": ShapeSpec(channels=256, stride=16)}
    boxes = Own(one, 3, pooler=ROIPooler(one, 4), head=Res5(depth=18))
    masks = ROIMasks(one, 3, pooler=SharedBoxFeatures(512, 2), num_conv=0)
    with pytest.raises(ValueError, match=r"Own has its own `losses`.*losses_of"):
        RCNNHead(one, 3, boxes=boxes, masks=masks)


def test_parts_that_do_not_fit_say_so():
    with pytest.raises(ValueError, match="3 classes, its box branch 4"):
        RCNNHead(PYRAMID, 3, boxes=ROIBoxes(PYRAMID, 4, head=SMALL))
    with pytest.raises(ValueError, match="shares the box branch's features"):
        RCNNHead(
            PYRAMID, 3, boxes=ROIBoxes(PYRAMID, 3, head=SMALL), masks=ROIMasks(PYRAMID, 3, pooler=SharedBoxFeatures())
        )
    with pytest.raises(ValueError, match="same number of channels"):
        RPN({"res4": ShapeSpec(channels=8, stride=16), "res5": ShapeSpec(channels=16, stride=32)})
    with pytest.raises(ValueError, match="in_features names 'p9', but the features are p2"):
        ROIPooler(PYRAMID, in_features=["p9"])


def _proposals(boxes):
    from vertebra_rcnn import Proposals

    rows = torch.tensor([boxes])
    return Proposals(rows, torch.zeros(1, len(boxes)), torch.ones(1, len(boxes), dtype=torch.bool))


def _write_png(path, image):
    from PIL import Image

    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def test_instances_of_no_image_size_mistakes():
    """Boxes of the original image scale with it: the same image, requested at twice the size."""
    model = make_model(overrides=("model.heads.objects.score_threshold=0.0",)).eval()
    image = make_input(0)["image"]
    with torch.no_grad():
        one, two = (model([{"image": image, "height": 64 * k, "width": 96 * k}])[0]["instances"] for k in (1, 2))
    assert isinstance(one, Instances) and isinstance(one.pred_boxes, Boxes)
    torch.testing.assert_close(one.pred_boxes.tensor * 2, two.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
