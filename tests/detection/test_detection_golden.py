"""Detection parts give Detectron2's numbers: arrays that Detectron2 0.6 computed on a CPU, in tests/reference."""

import json

import numpy as np
import pytest
import torch

from vertebra.detection import (
    BACKGROUND,
    IGNORE,
    AnchorGenerator,
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Matcher,
    batched_nms,
    rescale_instances,
    sem_seg_postprocess,
    subsample_labels,
)
from vertebra.structures import Boxes, Instances


@pytest.fixture(scope="module")
def golden(repository):
    path = repository / "tests/reference/detectron2_components_detection"
    with np.load(path.with_suffix(".npz")) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {**tensors, **json.loads(path.with_suffix(".json").read_text())}


@pytest.mark.parametrize("name", ["retinanet", "rpn_fpn", "rpn_c4", "offset_half"])
def test_anchors(golden, name):
    facts = golden[f"anchors/{name}"]
    generator = AnchorGenerator(facts["sizes"], facts["aspect_ratios"], facts["strides"], facts["offset"])
    assert generator.num_anchors == facts["num_anchors"]
    levels = generator([torch.empty(2, 1, *grid) for grid in facts["grids"]])
    for index, (anchors, cell) in enumerate(zip(levels, generator.cell_anchors, strict=True)):
        level = facts[f"level{index}"]
        assert torch.equal(cell, golden[f"anchors/{name}/cell/{index}"])
        assert len(anchors) == level["count"]
        assert torch.equal(anchors[:: level["step"]], golden[f"anchors/{name}/level/{index}"])
        assert anchors.double().sum().item() == pytest.approx(level["sum"], rel=1e-12)


@pytest.mark.parametrize(("name", "weights"), [("1", (1.0, 1.0, 1.0, 1.0)), ("10", (10.0, 10.0, 5.0, 5.0))])
def test_box2box_transform(golden, name, weights):
    coder = Box2BoxTransform(weights)
    source, target = golden["box/src"], golden["box/dst"]
    torch.testing.assert_close(coder.get_deltas(source, target), golden[f"box/get_deltas/{name}"], rtol=1e-6, atol=0)
    boxes = coder.apply_deltas(golden["box/deltas"], source)
    torch.testing.assert_close(boxes, golden[f"box/apply_deltas/{name}"], rtol=1e-6, atol=1e-4)


def test_box2box_transform_linear(golden):
    coder, source = Box2BoxTransformLinear(normalize_by_size=True), golden["box/src"]
    torch.testing.assert_close(coder.get_deltas(source, golden["box/dst"]), golden["box/linear_get"])
    boxes = coder.apply_deltas(golden["box/deltas"][:, :4].abs(), source)
    torch.testing.assert_close(boxes, golden["box/linear_apply"])


@pytest.mark.parametrize("name", ["rpn", "retinanet", "roi"])
def test_matcher(golden, name):
    facts = golden[f"matcher/{name}"]
    matcher = Matcher(facts["thresholds"], facts["labels"], facts["allow_low_quality_matches"])
    matches, labels = matcher(golden["matcher/iou"])
    assert torch.equal(matches, golden[f"matcher/{name}/idx"])
    assert torch.equal(labels, golden[f"matcher/{name}/labels"])
    matches, labels = matcher(torch.empty(0, 7))
    assert matches.tolist() == facts["no_gt"]["idx"]
    assert labels.tolist() == facts["no_gt"]["labels"]


@pytest.mark.parametrize("name", ["rpn", "retinanet", "roi"])
def test_batched_matcher(golden, name, monkeypatch):
    facts = golden[f"matcher/{name}"]
    matcher = Matcher(facts["thresholds"], facts["labels"], facts["allow_low_quality_matches"])
    monkeypatch.setattr("vertebra.detection.matcher.pairwise_iou", lambda truth, candidates: truth[..., :80])
    truth = torch.cat((golden["matcher/iou"], torch.full((2, 80), 0.99)))[None]  # overlaps in place of boxes; 2 padded
    valid = torch.tensor([[True] * 5 + [False] * 2])
    labels, idx = golden[f"matcher/{name}/labels"], golden[f"matcher/{name}/idx"]
    expected = torch.where(labels == 1, idx, torch.where(labels == 0, BACKGROUND, IGNORE))
    assert torch.equal(matcher.match_boxes(torch.empty(80, 4), truth, valid)[0], expected)


@pytest.mark.parametrize("seed", [0, 7])
def test_subsample_labels_draws_the_same(golden, seed):
    torch.manual_seed(seed)
    positive, negative = subsample_labels(golden["sampling/labels"], 64, 0.25, bg_label=3)
    assert torch.equal(positive, golden[f"sampling/seed{seed}/pos"])
    assert torch.equal(negative, golden[f"sampling/seed{seed}/neg"])


def test_batched_nms(golden):
    keep = batched_nms(golden["nms/boxes"], golden["nms/scores"], golden["nms/idxs"], 0.5)
    assert torch.equal(keep, golden["nms/keep"])


def test_rescale_instances(golden):
    instances = Instances(
        tuple(golden["post"]["image_size"]),
        pred_boxes=Boxes(golden["post/boxes"]),
        scores=golden["post/scores"],
        pred_classes=golden["post/classes"],
        pred_masks=golden["post/soft_masks"],
        pred_keypoints=golden["post/keypoints"],
    )
    height, width = golden["post"]["output"]
    result = rescale_instances(instances, height, width, golden["post"]["mask_threshold"])
    torch.testing.assert_close(result.pred_boxes.tensor, golden["post/out/boxes"])
    assert torch.equal(result.scores, golden["post/out/scores"])
    torch.testing.assert_close(result.pred_keypoints, golden["post/out/keypoints"])
    masks = np.unpackbits(golden["post/out/masks_packed"].numpy(), count=len(result) * height * width)
    assert np.array_equal(result.pred_masks.numpy().ravel(), masks)


def test_sem_seg_postprocess(golden):
    facts = golden["post/sem_seg"]
    resized = sem_seg_postprocess(golden["post/sem_seg_scores"], facts["img_size"], *facts["output"])
    torch.testing.assert_close(resized, golden["post/sem_out"])
