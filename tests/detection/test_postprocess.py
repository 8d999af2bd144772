import pytest
import torch

from vertebra.detection import (
    Box2BoxTransform,
    Candidates,
    batched_nms,
    rescale_instances,
    suppress,
    topk_candidates,
)
from vertebra.structures import Boxes, Instances, pairwise_iou

decode = Box2BoxTransform().apply_deltas


def dense_outputs(seed=0, levels=(30, 7), images=2, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(images, n, classes, generator=generator) - 1 for n in levels]
    regression = [torch.randn(images, n, 4, generator=generator) * 0.2 for n in levels]
    corner = [torch.rand(n, 2, generator=generator) * 40 for n in levels]
    anchors = [torch.cat((c, c + 5 + torch.rand(len(c), 2, generator=generator) * 20), dim=1) for c in corner]
    return logits, regression, anchors


def detections(outputs, image_sizes, *, score_threshold=0.05, topk=1000, nms_threshold=0.5, max_detections=100):
    """What a dense detector does with its outputs before it rescales the detections."""
    levels = [
        topk_candidates(*level, decode=decode, score_threshold=score_threshold, topk=topk)
        for level in zip(*outputs, strict=True)
    ]
    candidates = Candidates.cat(levels)
    return suppress(candidates, image_sizes, nms_threshold=nms_threshold, max_detections=max_detections)


def test_no_limit_gives_all_pairs():
    logits, regression = torch.randn(2, 5, 3), torch.zeros(2, 5, 4)
    everything = topk_candidates(
        logits, regression, torch.rand(5, 4), decode=lambda deltas, anchors: anchors, score_threshold=0.0, topk=None
    )
    assert torch.equal(everything.scores, logits.flatten(1).sigmoid().sort(dim=1, descending=True).values)


@pytest.mark.parametrize("topk", [1, 5, 20, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_topk_equals_a_full_sort(seed, topk):
    (logits, _), (regression, _), (anchors, _) = dense_outputs(seed)
    found = topk_candidates(logits, regression, anchors, decode=decode, score_threshold=0.3, topk=topk)
    for image in range(2):
        scores, index = logits[image].flatten().sigmoid().sort(descending=True)
        scores, index = scores[:topk], index[:topk]
        torch.testing.assert_close(found.scores[image], scores)
        assert torch.equal(found.classes[image], index % 3)
        assert torch.equal(found.valid[image], scores > 0.3)
        rows = index // 3
        assert torch.equal(found.boxes[image], decode(regression[image, rows], anchors[rows]))


def reference_detections(logits, regression, anchors, image, score_threshold, topk, nms_threshold, max_detections):
    """One image, level by level, as Detectron2's RetinaNet puts it."""
    all_boxes, all_scores, all_classes = [], [], []
    for level_logits, level_regression, level_anchors in zip(logits, regression, anchors, strict=True):
        scores = level_logits[image].sigmoid()
        pairs = (scores > score_threshold).nonzero()
        kept, order = scores[scores > score_threshold].sort(descending=True)
        rows, classes = pairs[order[:topk]].unbind(1)
        all_boxes.append(decode(level_regression[image, rows], level_anchors[rows]))
        all_scores.append(kept[:topk])
        all_classes.append(classes)
    boxes, scores, classes = torch.cat(all_boxes), torch.cat(all_scores), torch.cat(all_classes)
    keep = batched_nms(boxes, scores, classes, nms_threshold)[:max_detections]
    return boxes[keep], scores[keep], classes[keep]


@pytest.mark.parametrize("seed", range(4))
def test_dense_detections_equal_the_plain_loop(seed):
    outputs = dense_outputs(seed)
    sizes = [(60, 60), (50, 40)]
    found = detections(outputs, sizes, score_threshold=0.2, topk=12, nms_threshold=0.4, max_detections=9)
    for image, instances in enumerate(found):
        boxes, scores, classes = reference_detections(*outputs, image, 0.2, 12, 0.4, 9)
        assert torch.equal(instances.pred_boxes.tensor, boxes)
        torch.testing.assert_close(instances.scores, scores)
        assert torch.equal(instances.pred_classes, classes)
    assert found[1].image_size == (50, 40)


def test_nothing_above_the_threshold_gives_empty_instances():
    found = detections(dense_outputs(), [(60, 60)] * 2, score_threshold=0.9999)
    assert [len(instances) for instances in found] == [0, 0]
    assert found[0].pred_boxes.tensor.shape == (0, 4)


def test_rescaled_detections_lie_inside_their_own_image():
    sizes = [(30, 40), (20, 10)]
    found = detections(dense_outputs(), sizes)
    assert any((instances.pred_boxes.tensor < 0).any() for instances in found)  # suppression does not clip
    for instances, (height, width) in zip(found, sizes, strict=True):
        boxes = rescale_instances(instances, 2 * height, 3 * width).pred_boxes.tensor
        assert len(boxes) > 0
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([3 * width, 2 * height, 3 * width, 2 * height])).all()
    whole = Instances((30, 40), pred_boxes=Boxes([[-3.0, -4, 50, 60]]))
    assert rescale_instances(whole, 30, 40).pred_boxes.tensor.tolist() == [[0, 0, 40, 30]]


def test_suppression_works_within_a_class_and_ignores_what_is_not_valid():
    box = torch.tensor([10.0, 10.0, 20.0, 20.0])
    candidates = Candidates(
        boxes=torch.stack((box, box + 0.5, box, box))[None],
        scores=torch.tensor([[0.6, 0.9, 0.5, 0.99]]),
        classes=torch.tensor([[0, 0, 1, 0]]),
        valid=torch.tensor([[True, True, True, False]]),
    )
    (found,) = suppress(candidates, [(30, 30)], nms_threshold=0.5, max_detections=10)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.pred_classes.tolist() == [0, 1]
    (found,) = suppress(candidates, [(30, 30)], nms_threshold=0.5, max_detections=1)
    assert len(found) == 1


def test_what_belongs_to_a_candidate_goes_with_it():
    box = torch.tensor([10.0, 10.0, 20.0, 20.0])
    level = Candidates(
        boxes=torch.stack((box, box + 30))[None],
        scores=torch.tensor([[0.3, 0.9]]),
        classes=torch.zeros(1, 2, dtype=torch.int64),
        valid=torch.tensor([[True, True]]),
        details=torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
    )
    other = level._replace(scores=level.scores - 0.2, details=-level.details)  # the same boxes, which are suppressed
    (found,) = suppress(Candidates.cat([level, other]), [(90, 90)], nms_threshold=0.5, max_detections=9)
    assert found.details.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    plain = Candidates.cat([level._replace(details=None)] * 2)
    assert plain.details is None
    assert not suppress(plain, [(90, 90)], nms_threshold=0.5, max_detections=9)[0].has("details")


def test_batched_nms_leaves_no_overlap_in_a_group_and_takes_half_precision():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(80, 2, generator=generator) * 50
    boxes = torch.cat((corner, corner + 10 + torch.rand(80, 2, generator=generator) * 20), dim=1)
    scores, groups = torch.rand(80, generator=generator), torch.arange(80) % 3
    keep = batched_nms(boxes, scores, groups, 0.3)
    assert (scores[keep].diff() <= 0).all()
    iou = pairwise_iou(boxes[keep], boxes[keep]).fill_diagonal_(0)
    same = groups[keep][:, None] == groups[keep]
    assert iou[same].max() <= 0.3 + 1e-4
    assert len(batched_nms(boxes.half(), scores.half(), groups, 0.3)) > 0
    assert batched_nms(boxes[:0], scores[:0], groups[:0], 0.3).shape == (0,)


def test_rescaling_clips_drops_what_is_empty_and_leaves_the_input_alone():
    boxes = torch.tensor([[10.0, 10.0, 30.0, 20.0], [120.0, 10.0, 150.0, 20.0], [90.0, 40.0, 110.0, 60.0]])
    keypoints = torch.tensor([[[10.0, 20.0, 0.5]]]).repeat(3, 1, 1)
    instances = Instances((50, 100), pred_boxes=Boxes(boxes.clone()), scores=torch.arange(3), pred_keypoints=keypoints)
    result = rescale_instances(instances, height=100, width=50)
    assert result.image_size == (100, 50)
    assert result.pred_boxes.tensor.tolist() == [[5, 20, 15, 40], [45, 80, 50, 100]]
    assert result.scores.tolist() == [0, 2]
    assert result.pred_keypoints[0].tolist() == [[5, 40, 0.5]]
    assert torch.equal(instances.pred_boxes.tensor, boxes)
    assert instances.pred_keypoints[0].tolist() == [[10, 20, 0.5]]


def test_rescaling_proposals_and_no_instances():
    proposals = Instances((10, 10), proposal_boxes=Boxes([[1, 1, 5, 5]]))
    assert rescale_instances(proposals, 20, 20).proposal_boxes.tensor.tolist() == [[2, 2, 10, 10]]
    empty = Instances((10, 10), pred_boxes=Boxes([]), pred_masks=torch.zeros(0, 1, 28, 28))
    assert rescale_instances(empty, 7, 9).pred_masks.shape == (0, 7, 9)


def test_rescaling_says_what_it_needs():
    with pytest.raises(ValueError, match="pred_boxes or proposal_boxes"):
        rescale_instances(Instances((10, 10), scores=torch.zeros(1)), 5, 5)
    with pytest.raises(ValueError, match=r"\(n, 1, S, S\).*got \(1, 28, 28\)"):
        rescale_instances(Instances((9, 9), pred_boxes=Boxes([[0, 0, 5, 5]]), pred_masks=torch.zeros(1, 28, 28)), 5, 5)
