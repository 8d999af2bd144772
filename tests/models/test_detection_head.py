"""DetectionHead: a detector is its candidates; thresholds are one number under two names."""

import pytest
import torch
from torch import nn

from vertebra.detection import Candidates, Suppression
from vertebra.models import Batch, DetectionHead


class Fixed(DetectionHead):
    """Two boxes an image, whatever it shows."""

    def __init__(self, num_classes=2, **settings):
        super().__init__(num_classes, Suppression(**settings))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features):
        return features["x"].mean(dim=(1, 2, 3)) + self.bias

    def candidates(self, raw):
        boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 80, 40]]).expand(len(raw), -1, -1)
        scores = torch.tensor([0.9, 0.3]).expand(len(raw), -1)
        return Candidates(boxes, scores, torch.tensor([0, 1]).expand(len(raw), -1), scores > self.score_threshold)


def test_candidates_become_instances_in_the_original_size_and_a_graphs_outputs():
    batch = Batch(torch.zeros(1, 3, 50, 50), [(50, 50)], [(100, 25)], [{}])
    head = Fixed()
    raw = head({"x": torch.zeros(1, 1, 2, 2)})
    (found,) = head.predict(raw, batch)
    assert found["instances"].pred_boxes.tensor.tolist() == [[0, 0, 5, 20], [10, 40, 25, 80]]
    exported = head.export_predictions(raw, (50, 50))
    assert exported["classes"][0, :3].tolist() == [0, 1, 0]
    assert exported["boxes"].shape == (1, 100, 4)


def test_a_threshold_is_the_heads_and_its_suppressions():
    head = Fixed(max_detections=7)
    assert head.max_detections == 7
    head.score_threshold, head.class_agnostic_nms, head.topk_candidates = 0.5, True, 3
    assert (head.suppression.score_threshold, head.suppression.class_agnostic, head.suppression.topk) == (0.5, True, 3)
    head.suppression.nms_threshold = 0.1
    assert head.nms_threshold == 0.1
    assert list(head.state_dict()) == ["bias"]


def test_a_head_needs_a_class_and_a_method():
    with pytest.raises(ValueError, match="Fixed needs at least one class, num_classes is 0"):
        Fixed(0)
    with pytest.raises(ValueError, match=r"Fixed needs at least one class, num_classes is \{'p3': 1\}"):
        Fixed({"p3": 1})
    with pytest.raises(NotImplementedError, match=r"DetectionHead cannot predict: it has no method candidates\(raw\)"):
        DetectionHead(2).candidates(None)
