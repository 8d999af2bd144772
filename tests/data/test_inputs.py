"""Inputs that parts ask for beside images come from the dataset: in training and in evaluation."""

import json
from pathlib import Path

import pytest

from vertebra import DataError, Trainer, build_model, evaluate, load_recipe

PLUGIN = """
import torch
from torch import nn
from vertebra import HEADS, Head
from vertebra.structures import Boxes, Instances

@HEADS.register()
class Prompted(Head):
    task_outputs = ("instances",)
    needs_inputs = ("text",)
    def __init__(self, input_shape, num_classes) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))
    def forward(self, features, text):
        return [self.one * len(words) for words in text]
    def losses(self, raw, batch):
        return {"loss": sum(raw).sum()}
    def predict(self, raw, batch):
        return [{"instances": Instances(size, pred_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]])), scores=one.clamp(max=1),
            pred_classes=torch.zeros(1).long())} for one, size in zip(raw, batch.original_sizes)]
"""
RECIPE = """
plugins: [prompted.py]
model: {backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res2], weights: null},
  heads: {boxes: {name: Prompted}}}
data: {train_transforms: [], eval_transforms: [], workers: 0}
train: {steps: 1, batch_size: 2, device: cpu, amp: "off", clip_gradients: null}
evaluate: {report: false}
"""


def test_evaluation_without_an_input_is_found_before_training(tmp_path, monkeypatch, coco_folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompted.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(RECIPE)
    annotation = {"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4]}
    file, folder = coco_folder({"a.png": (64, 64), "b.png": (64, 64)}, [annotation, {**annotation, "image_id": 2}])
    data = json.loads(Path(file).read_text())
    (tmp_path / "without.json").write_text(json.dumps(data))
    for record, words in zip(data["images"], (["cat"], ["dog", "cow"]), strict=True):
        record["text"] = words
    (tmp_path / "with.json").write_text(json.dumps(data))
    source = {"format": "coco", "images": str(folder)}
    complete = {**source, "annotations": "with.json"}
    recipe = load_recipe("r.yaml", {"data.train": complete, "data.val": {**source, "annotations": "without.json"}})
    for fails in (lambda: Trainer(recipe, "one"), lambda: evaluate(build_model(recipe, num_classes=1), recipe)):
        with pytest.raises(DataError, match=r"a\.png has no 'text', which .*head Prompted takes.*\n.* in a COCO file$"):
            fails()
    results = Trainer(load_recipe("r.yaml", {"data.train": complete, "data.val": complete}), "two").train()
    assert results["loss"] == 3 and "bbox/AP" in results
