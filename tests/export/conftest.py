"""Small models that find something, and are exported in seconds."""

import pytest
import torch

from vertebra import Batch, Head, Model, ShapeSpec
from vertebra.export import suppressed
from vertebra.models.contracts import Backbone

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5]}
  neck: {name: FPN, out_channels: 16}
  heads:
    boxes: {name: RetinaNetHead, num_convs: 1, prior_prob: 0.3, score_threshold: 0.2, num_classes: 3}
"""


@pytest.fixture
def tiny_recipe(tmp_path):
    """tiny.yaml in tmp_path: a RetinaNet that needs no dataset."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path / "tiny.yaml"


@pytest.fixture(autouse=True)
def needs_onnx():
    """These tests need the packages of the extra `onnx`."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


class Pyramid(Backbone):
    """Two convolutions, of strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.norm = torch.nn.BatchNorm2d(8)
        self.coarse = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def output_shape(self):
        return {"fine": ShapeSpec(8, 4), "coarse": ShapeSpec(8, 8)}

    def forward(self, images):
        fine = self.norm(self.fine(images)).relu()
        return {"fine": fine, "coarse": self.coarse(fine).relu()}


class CellHead(Head):
    """A box around every cell of the finest level, of all classes with different scores."""

    task_outputs = ("instances",)

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.score = torch.nn.Conv2d(8, num_classes, 1)
        self.reach = torch.nn.Conv2d(8, 4, 1)
        self.score_threshold, self.nms_threshold, self.class_agnostic_nms, self.max_detections = 0.3, 0.4, False, 40

    def forward(self, features):
        return {"scores": self.score(features["fine"]), "reach": self.reach(features["fine"])}

    def decode(self, raw):
        scores, reach = (raw[name].flatten(2).transpose(1, 2) for name in ("scores", "reach"))
        height, width = raw["scores"].shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        center = torch.stack((x, y), dim=-1).reshape(-1, 2) * 4 + 2.0
        reach = reach.exp() * 6
        return torch.cat((center - reach[..., :2], center + reach[..., 2:]), dim=2), scores.sigmoid()

    def export_predictions(self, raw, image_size):
        return suppressed(
            *self.decode(raw),
            nms_threshold=self.nms_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            class_agnostic=self.class_agnostic_nms,
        )


class MapHead(Head):
    """Class scores of each pixel, from the coarse level."""

    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.score = torch.nn.Conv2d(8, num_classes, 1)

    def forward(self, features):
        return self.score(features["coarse"])

    def export_raw(self, raw, image_size):
        return {"sem_seg_scores": torch.nn.functional.interpolate(raw, size=image_size, mode="bilinear")}

    def export_predictions(self, raw, image_size):
        return {"sem_seg": self.export_raw(raw, image_size)["sem_seg_scores"].argmax(dim=1)}

    def predict(self, raw, batch: Batch):
        raise NotImplementedError


@pytest.fixture
def make_model():
    """make_model(boxes=CellHead()): a model of those heads with fixed random weights."""

    def make(pixel_order: str = "rgb", **heads: Head) -> Model:
        torch.manual_seed(0)
        model = Model(Pyramid(), None, heads, pixel_order=pixel_order).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.backbone.norm.running_mean.normal_()
        model.backbone.norm.running_var.uniform_(0.5, 2)
        return model

    return make


@pytest.fixture
def cell_head():
    return CellHead()


@pytest.fixture
def map_head():
    return MapHead()
