"""Recipes and overrides with random faults: loaded, or refused with a documented error that names the file."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import SCALARS, bounded, changed, changed_text
from vertebra.config import load_recipe
from vertebra.errors import VertebraError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml"))
WHOLE = """\
seed: 3
output: runs/{name}
plugins: []
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5], weights: null}
  neck: {name: FPN, out_channels: 32, top_block: p6p7}
  heads:
    boxes: {name: RetinaNetHead, num_convs: 1, cls_loss: {name: SigmoidFocalLoss, alpha: 0.25}}
  pixel_mean: [1.0, 2.0, 3.0]
data:
  root: data
  train: {format: coco, annotations: a.json, images: images, classes: [a, b]}
  val: [{format: shapes, images: 4, split: val}, {format: coco, annotations: b.json, images: images}]
  train_transforms: [RandomFlip, {name: ResizeShortestEdge, short_edge: [64, 96], max_size: 128}]
  sampler: {name: RepeatFactorTrainingSampler, repeat_threshold: 0.1}
  workers: 0
train:
  epochs: 2
  batch_size: 4
  optimizer: {name: SGD, lr: 0.01}
  schedule: {name: WarmupMultiStep, milestones: [0.5, 0.9]}
  hooks: [{name: EMA, decay: 0.99}]
  checkpoint_every: 2 epochs
evaluate: {evaluators: [{name: COCOEvaluator}], batch_size: 2}
"""
PATHS = [
    "seed",
    "train.batch_size",
    "model.heads",
    "data.train_transforms.0",
    "a.b.c",
    "train.optimizer.lr",
    "",
    ".",
    "x",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


def load(path, overrides=()):
    try:
        recipe = load_recipe(path, overrides)
    except VertebraError as err:
        assert str(err).strip()
        return
    again = path.with_name("again.yaml")
    recipe.save(again)
    assert load_recipe(again) == recipe  # what loads is saved and loads again


@bounded
@given(content=changed_text(WHOLE))
def test_bytes(folder, content):
    (folder / "bytes.yaml").write_bytes(content)
    load(folder / "bytes.yaml")


@bounded
@given(document=changed(yaml.safe_load(WHOLE)))
def test_values(folder, document):
    (folder / "values.yaml").write_text(json.dumps(document))
    load(folder / "values.yaml")


@bounded
@given(key=st.sampled_from(PATHS) | st.text(max_size=8), value=SCALARS | st.text(max_size=20))
def test_overrides(folder, key, value):
    (folder / "whole.yaml").write_text(WHOLE)
    text = value if isinstance(value, str) else json.dumps(value)
    load(folder / "whole.yaml", [f"{key}={text}"])
    load(folder / "whole.yaml", [{key: value}])


@bounded
@given(document=changed({"_base_": ["whole.yaml"], "train": {"steps": 5, "epochs": None}, "model": {"neck": None}}))
def test_bases(folder, document):
    (folder / "whole.yaml").write_text(WHOLE)
    (folder / "derived.yaml").write_text(json.dumps(document))
    load(folder / "derived.yaml")
