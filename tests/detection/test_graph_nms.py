"""NMS in a graph gives what NMS outside gives."""

import pytest
import torch

from vertebra.detection import Candidates, suppress, top_values
from vertebra.detection.graph_nms import suppressed, suppressed_candidates

SETTINGS = {"nms_threshold": 0.5, "score_threshold": 0.3, "max_detections": 20}


def boxes_and_scores(images: int = 2, rows: int = 60, classes: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, rows, 2, generator=generator) * 100
    size = torch.rand(images, rows, 2, generator=generator) * 60 + 5
    return torch.cat((corner, corner + size), dim=2), torch.rand(images, rows, classes, generator=generator)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_it_equals_suppression_of_the_same_candidates(class_agnostic):
    boxes, scores = boxes_and_scores()
    images, rows, classes = scores.shape
    pairs = Candidates(
        boxes[:, :, None].expand(-1, -1, classes, -1).flatten(1, 2),
        scores.flatten(1),
        torch.arange(classes).expand(images, rows, -1).flatten(1),
        scores.flatten(1) > SETTINGS["score_threshold"],
    )
    expected = suppress(pairs, [(200, 200)] * 2, nms_threshold=0.5, max_detections=20, class_agnostic=class_agnostic)
    found = suppressed(boxes, scores, **SETTINGS, class_agnostic=class_agnostic)
    for image, instances in enumerate(expected):
        count = len(instances)
        assert 0 < count <= 20
        assert torch.equal(found["boxes"][image, :count], instances.pred_boxes.tensor)
        assert torch.equal(found["scores"][image, :count], instances.scores)
        assert torch.equal(found["classes"][image, :count], instances.pred_classes)
        assert not found["scores"][image, count:].any()


def test_of_two_boxes_of_a_class_the_worse_one_goes_and_rows_of_zeros_fill_up():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.7], [0.0, 0.2]]])
    found = suppressed(boxes, scores, nms_threshold=0.5, score_threshold=0.25, max_detections=4)
    assert found["scores"].tolist() == [pytest.approx([0.9, 0.7, 0, 0])]
    assert found["classes"].tolist() == [[0, 1, 0, 0]]
    assert found["boxes"][0].tolist() == [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 0, 0], [0, 0, 0, 0]]
    agnostic = suppressed(boxes, scores, nms_threshold=0.5, score_threshold=0.25, max_detections=4, class_agnostic=True)
    assert agnostic["scores"].tolist() == [pytest.approx([0.9, 0, 0, 0])]


def test_no_class_keeps_more_than_asked_for():
    boxes = torch.arange(12.0).view(1, 12, 1) * 20 + torch.tensor([0.0, 0, 10, 10])
    kept = torch.ops.vertebra.suppressed_scores(boxes, torch.linspace(0.4, 0.9, 24).view(1, 2, 12), 0.5, 0.0, 5)
    assert (kept > 0).sum(dim=2).tolist() == [[5, 5]]


def test_pairs_that_are_not_valid_are_no_candidates():
    boxes, scores = boxes_and_scores(images=1, rows=4, classes=1)
    pairs = Candidates(boxes, scores[..., 0], torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool))
    found = suppressed_candidates(pairs, 3, **SETTINGS)
    assert found["boxes"].shape == (1, 20, 4)
    assert not any(value.any() for value in found.values())


def test_the_operator_keeps_torchs_rules():
    boxes, scores = boxes_and_scores(rows=8)
    arguments = (boxes, scores.transpose(1, 2).contiguous(), 0.5, 0.3, 5)
    torch.library.opcheck(torch.ops.vertebra.suppressed_scores.default, arguments)


def test_the_best_values_where_the_size_is_a_symbol_fill_up_with_minus_infinity():
    class Top(torch.nn.Module):
        def forward(self, values):
            return top_values(values, 5)

    dynamic = {"values": {1: torch.export.Dim("rows", min=2)}}
    program = torch.export.export(Top(), (torch.rand(1, 9),), dynamic_shapes=dynamic, strict=False).module()
    values = torch.tensor([[0.1, 0.3, 0.2]])
    best, index = program(values)
    assert best.tolist() == [[*torch.tensor([0.3, 0.2, 0.1]).tolist(), -torch.inf, -torch.inf]]
    assert index[0, :3].tolist() == [1, 2, 0] and int(index.max()) < 3
    assert top_values(values, 5)[0].shape == (1, 3)
