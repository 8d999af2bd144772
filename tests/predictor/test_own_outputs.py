"""Predictions of kinds of one's own: drawn by their head, written as arrays, under class names of their own."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra import HEADS, Head, Predictor, build_model, load_recipe
from vertebra.errors import PluginError
from vertebra.predictor import predict_files
from vertebra.structures import Boxes, Instances

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res2], weights: null}
  heads: {depth: DepthLike, words: WordLike}
data:
  val: {format: shapes, images: 2, size: 64}
  eval_transforms: []
"""


@HEADS.register()
class DepthLike(Head):
    task_outputs = ("depth",)
    drawn = np.full((5, 6, 3), 7, np.uint8)

    def __init__(self, input_shape):
        super().__init__()

    def forward(self, features):
        return features["res2"].mean(1)

    def predict(self, raw, batch):
        return [
            {"depth": torch.full(size, 2.5), "flow": torch.ones(2, *size), "unit": "m"} for size in batch.original_sizes
        ]

    def draw(self, picture, output, metadata):
        assert picture.dtype == np.uint8 and list(output) == ["depth"]
        return self.drawn


@HEADS.register()
class WordLike(Head):
    task_outputs = ("instances", "class_names")

    def __init__(self, input_shape):
        super().__init__()

    def forward(self, features):
        return features["res2"].mean(1)

    def predict(self, raw, batch):
        fields = {
            "pred_boxes": Boxes([[1.0, 2, 11, 22]]),
            "scores": torch.tensor([0.9]),
            "pred_classes": torch.tensor([1]),
        }
        return [
            {"instances": Instances(size, **fields), "class_names": ["cat", "zebra"]} for size in batch.original_sizes
        ]


@pytest.fixture
def predictor(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    Image.new("RGB", (60, 40), "gray").save(tmp_path / "a.png")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    torch.save({"model": build_model(recipe).state_dict()}, tmp_path / "weights.pth")
    return Predictor(recipe, tmp_path / "weights.pth", device="cpu")


def test_a_head_draws_and_arrays_hold_what_no_other_file_does(predictor, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        written = predict_files(predictor, tmp_path / "a.png", output=tmp_path / "out")
    assert {path.name for path in written.files} == {"a.png", "a-depth.png", "predictions.json", "arrays"}
    assert (np.asarray(Image.open(tmp_path / "out/a-depth.png")) == 7).all()
    arrays = np.load(tmp_path / "out/arrays/a.npz")
    assert (arrays["depth"] == 2.5).all() and arrays["depth"].shape == (40, 60)
    assert arrays["instances.pred_boxes"].tolist() == [[1, 2, 11, 22]]
    assert arrays["flow"].shape == (2, 40, 60) and (arrays["flow"] == 1).all()  # no scores, of which labels would do
    assert [line for line in caplog.messages if "arrays/*.npz do not hold the output unit" in line]


def test_classes_of_its_own_are_named(predictor, tmp_path):
    predict_files(predictor, tmp_path / "a.png", output=tmp_path / "out")
    (record,) = json.loads((tmp_path / "out/predictions.json").read_text())
    assert (record["category"], record["category_id"]) == ("zebra", 1)


@pytest.mark.parametrize(("saved", "words"), [("coco", "depth, flow, unit"), ("pictures", "flow, unit")])
def test_an_output_that_no_chosen_format_holds_is_named(predictor, tmp_path, caplog, saved, words):
    with caplog.at_level(logging.WARNING):
        predict_files(predictor, tmp_path / "a.png", output=tmp_path / "out", save=[saved])
    assert f"not written: the output {words}. Files that hold it: --save {saved},arrays" in caplog.messages


def test_a_picture_of_another_form_names_the_head(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(DepthLike, "drawn", np.zeros((5, 6)))
    with pytest.raises(PluginError, match=r"head DepthLike: draw returned an array of shape \(5, 6\) and float64"):
        predict_files(predictor, tmp_path / "a.png", output=tmp_path / "out")
