"""The recipes of YOLOv1, v2 and v3: all load and build; heads and necks mix with other parts."""

import math

import pytest
import torch

from vertebra.config import list_recipes, load_recipe
from vertebra.engine import Trainer
from vertebra.models import build_model

NAMES = [name for name in list_recipes() if name.startswith(("yolo:yolov1_", "yolo:yolov2_", "yolo:yolov3_"))]

ON_FPN = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5]}
  neck: {name: FPN, out_channels: 32, top_block: p6p7}
  heads:
    boxes: {name: YOLOv3Head, anchors: [[[8, 8]], [[16, 16]], [[32, 32]], [[64, 64]], [[90, 90]]], box_loss: CIoULoss}
data: {train: {format: shapes}, val: {format: shapes, split: val}}
"""
OWN_NECK = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5]}
  neck: {name: YOLOv3Neck, channels: [16, 32, 64]}
  heads:
    boxes: {name: YOLOv3Head}
data: {train: {format: shapes}, val: {format: shapes, split: val}}
"""


SHORT = {
    "data.train": {"format": "shapes", "images": 8, "val_images": 2, "size": [64, 96]},
    "data.val": {"format": "shapes", "images": 8, "val_images": 2, "size": [64, 96], "split": "val"},
    "data.train_transforms": [],
    "data.eval_transforms": [],
    "data.workers": 0,
    "train.batch_size": 2,
    "train.device": "cpu",
    "evaluate.report": False,
}


def test_all_of_them_are_found():
    assert {name.removeprefix("yolo:") for name in NAMES} >= {
        "yolov1_coco",
        "yolov1_fast_coco",
        "yolov1_fast_shapes",
        "yolov2_coco",
        "yolov2_shapes",
        "yolov3_coco",
        "yolov3_tiny_bccd",
        "yolov3_tiny_coco",
        "yolov3_tiny_shapes",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_builds_a_model_that_sees_values_from_0_to_1(name):
    with torch.device("meta"):
        model = build_model(load_recipe(name), 3, pretrained=False)
    assert (model.pixel_mean.flatten().shape, model.pixel_std.shape) == ((3,), (3, 1, 1))
    recipe = load_recipe(name)
    assert tuple(recipe.model.pixel_mean) == (0, 0, 0)
    assert tuple(recipe.model.pixel_std) == (255, 255, 255)
    recipe.train.schedule.build().check(100_000)


def test_the_coco_recipes_train_at_darknets_sizes():
    for name in ("yolov2_coco", "yolov3_coco", "yolov3_tiny_coco"):
        (hook,) = load_recipe(f"yolo:{name}").train.hooks
        assert hook.build().sizes == list(range(320, 609, 32))
        assert hook.build().every == 10


@pytest.mark.parametrize("text", [ON_FPN, OWN_NECK], ids=["YOLOv3Head on an FPN", "YOLOv3Neck on a ResNet"])
def test_parts_mix_with_those_of_the_core(text, tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(text)
    results = Trainer(load_recipe(path, SHORT | {"train.steps": 2}), output_dir=tmp_path / "run").train()
    assert math.isfinite(results["loss"])
    assert "bbox/AP" in results


def test_a_training_with_several_sizes_resumes_exactly(tmp_path):
    changes = SHORT | {
        "data.val": None,
        "model.backbone.width": 4,
        "model.neck.width": 16,
        "train.epochs": None,
        "train.steps": 6,
        "train.checkpoint_every": 3,
        "train.hooks": [{"name": "MultiScale", "sizes": [64, 96, 128], "every": 1}],
    }
    recipe = load_recipe("yolo:yolov2_shapes", changes)
    whole = Trainer(recipe, output_dir=tmp_path / "whole")
    whole.train()
    (tmp_path / "parts" / "checkpoints").mkdir(parents=True)
    checkpoint = tmp_path / "whole" / "checkpoints" / "step_0000003.pth"
    (tmp_path / "parts" / "checkpoints" / checkpoint.name).write_bytes(checkpoint.read_bytes())
    resumed = Trainer(recipe, output_dir=tmp_path / "parts", resume=True)
    assert resumed.step == 3
    resumed.train()
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
