"""Parts whose feature maps, scores or candidates are not what their contract says are named, with a remedy."""

import pytest
import torch
from torch import nn

from vertebra import Backbone, Model, Neck, PluginError, ShapeSpec
from vertebra.models import DetectionHead, SemanticHead

INPUT = {"image": torch.zeros(3, 32, 48, dtype=torch.uint8)}


class Maps(Backbone):
    def __init__(self, found=None, stride=8, channels=3):
        super().__init__()
        self.found, self.stride, self.channels = found, stride, channels

    def output_shape(self):
        return {"map": ShapeSpec(self.channels, self.stride)}

    def forward(self, images):
        maps = nn.functional.avg_pool2d(images, 8)
        return {"map": maps} if self.found is None else self.found(maps)


class Alone(Neck):
    def output_shape(self):
        return {"map": ShapeSpec(3, 8)}

    def forward(self, features):
        return features["map"]


class Scores(SemanticHead):
    def __init__(self, found):
        super().__init__(num_classes=3)
        self.found = found

    def forward(self, features):
        return self.found(features["map"])


class Boxes(DetectionHead):
    def __init__(self, found):
        super().__init__(num_classes=3)
        self.found = found

    def forward(self, features):
        return features["map"]

    def candidates(self, raw):
        return self.found(raw)


def right(maps):
    return maps


@pytest.mark.parametrize(
    ("backbone", "neck", "words"),
    [
        (Maps(lambda maps: maps), None, r"model.backbone .*must return a dict of feature maps, got a tensor of shape"),
        (Maps(lambda maps: [maps]), None, "model.backbone .*got a value of type list"),
        (Maps(lambda maps: {"other": maps}), None, "announces 'map', but forward returns other"),
        (Maps(lambda maps: {"map": maps[0]}), None, r"'map' must be a tensor \(N, C, H, W\)"),
        (Maps(channels=5), None, "'map' has 3 channels, but output_shape\\(\\) announces 5"),
        (Maps(stride=16), None, r"has \(4, 6\) cells for images of \(32, 48\) pixels .*announces the stride 16"),
        (Maps(), Alone(), "model.neck .*must return a dict of feature maps"),
    ],
)
def test_feature_maps(backbone, neck, words):
    model = Model(backbone, neck, {"labels": Scores(right)}).eval()
    with pytest.raises(PluginError, match=words):
        model([INPUT])


class RoundsDown(Maps):
    size_divisibility = 1

    def forward(self, images):
        return {"map": nn.functional.avg_pool2d(images, 7)}  # 4 x 6 cells of 32 x 48 pixels, where 5 x 7 begin


def test_maps_of_rounded_down_sizes_are_right():
    model = Model(RoundsDown(stride=7), None, {"labels": Scores(right)}).eval()
    assert model([INPUT])[0]["sem_seg"].shape == (3, 32, 48)


@pytest.mark.parametrize("found", [lambda maps: {"scores": maps}, lambda maps: maps[:, 0]])
def test_scores_of_a_semantic_head(found):
    model = Model(Maps(), None, {"labels": Scores(found)}).eval()
    with pytest.raises(
        PluginError, match=r"Scores: forward must return class scores \(N, K, h, w\).*(?s:.)*class_scores"
    ):
        model([INPUT])


def test_candidates_of_a_detection_head():
    model = Model(Maps(), None, {"boxes": Boxes(lambda raw: (raw, raw, raw))}).eval()
    with pytest.raises(
        PluginError, match=r"Boxes: candidates must return vertebra\.detection\.Candidates, got .*tuple"
    ):
        model([INPUT])


class Margins(Maps):
    def forward(self, images):
        return {"map": nn.functional.avg_pool2d(images, 8)[..., 1:-1, 1:-1]}


def test_maps_without_margins_are_no_strides_fault():
    model = Model(Margins(), None, {"labels": Scores(right)}).eval()
    assert model([INPUT])[0]["sem_seg"].shape == (
        3,
        32,
        48,
    )  # 2 x 4 cells, as a stride of 16 would give in one direction


def test_candidates_are_checked_in_an_export_too():
    head = Boxes(lambda raw: (raw, raw, raw))
    with pytest.raises(PluginError, match="Boxes: candidates must return"):
        head.export_predictions(torch.zeros(1, 3, 4, 4), (32, 32))
