"""A model of two images of different kinds, one of five bands, from training to prediction."""

import json

import numpy as np
import pytest
import tifffile
import torch

from vertebra import Predictor
from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.errors import DataError

pytestmark = pytest.mark.e2e

BACKBONE = """
from torch import nn

from vertebra import BACKBONES, Backbone
from vertebra.models import ShapeSpec


@BACKBONES.register()
class OpticalAndRadar(Backbone):
    needs_fields = {"radar": "image"}

    def __init__(self):
        super().__init__()
        self.optical = nn.Conv2d(3, 8, 8, stride=8)
        self.radar = nn.Conv2d(2, 8, 8, stride=8)

    def output_shape(self):
        return {"map": ShapeSpec(8, 8)}

    def forward(self, images, radar):
        return {"map": self.optical(images) + self.radar(radar)}
"""
RECIPE = """
_base_: retinanet:retinanet_shapes_quick
plugins: [./backbone.py]
model:
  pixel_mean: auto
  pixel_std: auto
  backbone: {name: OpticalAndRadar}
  neck: null
  heads: {boxes: {num_convs: 0}}
data:
  image: {name: Bands, bands: 5, highest: 10000}
  fields:
    radar: {geometry: image, reader: {name: ArrayFile, channels: 2}, pixel_mean: auto, pixel_std: auto}
  train: {format: coco, annotations: data.json, images: .}
  val: {format: coco, annotations: data.json, images: .}
  train_transforms:
    - {name: Mosaic, prob: 0.5}
    - {name: RandomAffine, size: 64}
    - {name: RandomFlip}
    - {name: GaussianNoise, images: [image, radar]}
  workers: 1
train: {steps: 4, batch_size: 2, device: cpu, checkpoint_every: 2, keep_checkpoints: 3, amp: "off"}
evaluate: {pictures: 1, report: true, amp: "off"}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(6):
        pixels = rng.integers(0, 4000, (64, 80, 5)).astype(np.uint16)
        pixels[10:40, 20:50, 3] = 9000
        tifffile.imwrite(f"{number}.tif", pixels, photometric="minisblack", planarconfig="contig")
        np.save(f"{number}.npy", rng.random((64, 80, 2)).astype(np.float32))
        name = {"file_name": f"{number}.tif", "radar": f"{number}.npy"}
        images.append({"id": number, "height": 64, "width": 80, **name})
        box = {"bbox": [20, 10, 30, 30], "category_id": 1, "iscrowd": 0, "area": 900}
        annotations.append({"id": number + 1, "image_id": number, **box})
    categories = [{"id": 1, "name": "field"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "data.json").write_text(json.dumps(content))
    (tmp_path / "backbone.py").write_text(BACKBONE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_two_images_are_trained_on_resumed_evaluated_and_predicted(folder):
    Trainer(load_recipe("recipe.yaml"), "run").train()
    resolved = load_recipe("run/recipe.yaml")
    assert len(resolved.model.pixel_mean) == 5 and len(resolved.data.fields["radar"].pixel_std) == 2
    assert list((folder / "run/evaluation/pictures").glob("*.png"))
    whole = torch.load("run/final.pth", weights_only=True)["model"]
    assert whole["backbone.optical.weight"].shape[1] == 5
    (folder / "run/final.pth").unlink()
    for path in (folder / "run/checkpoints").glob("step_0000004*"):
        path.unlink()
    (folder / "run/checkpoints/last").unlink(missing_ok=True)
    Trainer(resolved, "run", resume=True).train()
    again = torch.load("run/final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())

    predictor = Predictor("run/recipe.yaml", "run/final.pth", device="cpu")
    given = {"image": "0.tif", "radar": np.load("0.npy")}
    assert predictor(given)["instances"].image_size == (64, 80)
    with pytest.raises(DataError, match=r"the model takes image, radar, but was given image\."):
        predictor("0.tif")
    with pytest.raises(DataError, match=r"expected a file, an array \(H, W, 2\) float32"):
        predictor({"image": "0.tif", "radar": np.zeros((64, 80, 3), np.float32)})
    with pytest.raises(DataError, match=r"takes several images \(image, radar\), but was not given radar"):
        next(predictor.stream("0.tif"))
    (prediction,) = predictor.stream("0.tif", inputs={"radar": "{stem}.npy"})
    alone = predictor(given)["instances"]
    assert torch.equal(prediction.outputs["instances"].pred_boxes.tensor, alone.pred_boxes.tensor)
