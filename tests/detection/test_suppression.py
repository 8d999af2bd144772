"""Suppression: one part from candidates to detections, in the model and in an exported graph."""

import pytest
import torch

from vertebra import PARTS
from vertebra.detection import Candidates, Suppression

BOXES = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 50, 60, 60], [80, 80, 90, 90]]])
SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.04]])
CLASSES = torch.tensor([[0, 0, 1, 1, 1]])


def candidates(part: Suppression) -> Candidates:
    return Candidates(BOXES, SCORES, CLASSES, part.score_threshold < SCORES)


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({}, [0.9, 0.7, 0.6]),
        ({"class_agnostic": True}, [0.9, 0.6]),
        ({"nms_threshold": 1.0}, [0.9, 0.8, 0.7, 0.6]),
        ({"score_threshold": 0.65}, [0.9, 0.7]),
        ({"score_threshold": 0.0, "max_detections": 2}, [0.9, 0.7]),
        ({"score_threshold": 0.95}, []),
    ],
)
def test_each_number_does_its_part_in_the_model_and_in_a_graph(settings, scores):
    part = Suppression(**settings)
    (found,) = part(candidates(part), [(100, 100)])
    assert found.scores.tolist() == pytest.approx(scores)
    graph = part.candidates_in_graph(candidates(part), num_classes=2)
    assert graph["scores"].shape == (1, part.max_detections)
    assert graph["scores"][0, : len(scores)].tolist() == pytest.approx(scores)
    assert torch.equal(graph["boxes"][0, : len(scores)], found.pred_boxes.tensor)
    assert not graph["scores"][0, len(scores) :].any()


def test_what_is_changed_after_training_counts():
    part = Suppression()
    part.class_agnostic, part.max_detections = True, 1
    (found,) = part(candidates(part), [(100, 100)])
    assert found.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"score_threshold": 50}, "score_threshold is 50; scores are from 0 to 1"),
        ({"score_threshold": float("nan")}, "score_threshold is nan"),
        ({"nms_threshold": 50}, "nms_threshold is 50; it is an IoU, from 0 to 1, where 1 drops nothing"),
        ({"nms_threshold": -0.1}, "nms_threshold is -0.1"),
        ({"max_detections": 0}, "max_detections is 0, expected at least 1"),
        ({"topk": 0}, "the number of candidates is 0, expected at least 1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Suppression(**settings)


def test_it_is_a_part_without_state_whose_numbers_are_shown():
    assert PARTS.get("Suppression") is Suppression
    assert Suppression().state_dict() == {}
    assert "nms_threshold=0.5, score_threshold=0.05" in repr(Suppression())
