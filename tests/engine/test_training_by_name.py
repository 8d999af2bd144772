"""Classes of splits, checkpoints and starting weights agree by name, or nothing starts."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import Metadata
from vertebra.engine import Trainer
from vertebra.errors import CheckpointError, DataError
from vertebra.models import ClassRows, build_model
from vertebra.models.follow_classes import follow_classes
from vertebra.testing.inputs import make_metadata

RECIPE = """
seed: 1
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4], weights: null}
  neck: {name: FPN, out_channels: 16}
  heads: {boxes: {name: RetinaNetHead, num_convs: 1, prior_prob: 0.3, score_threshold: 0.2}}
data:
  train: {format: coco, annotations: train.json, images: .}
  val: {format: coco, annotations: val.json, images: .}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 1, batch_size: 2, device: cpu, amp: "off", optimizer: {name: SGD, lr: 1.0e-9}}
evaluate: {report: false, amp: "off"}
"""
CLASSES = [(1, "cat"), (2, "dog"), (3, "bird")]


def write(path, categories):
    """Two images with one object of each class; the place of an object tells its name."""
    names = sorted(name for _, name in categories)
    images = [{"id": number, "file_name": f"{number}.png", "height": 64, "width": 96} for number in (1, 2)]
    for image in images:
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(path.parent / image["file_name"])
    boxes = [
        {"image_id": image["id"], "category_id": number, "bbox": [8 + 24 * names.index(name), 8, 20, 30]}
        for image in images
        for number, name in categories
    ]
    records = [{"id": i, "area": 600, "iscrowd": 0, **box} for i, box in enumerate(boxes, start=1)]
    named = [{"id": number, "name": name} for number, name in categories]
    path.write_text(json.dumps({"images": images, "annotations": records, "categories": named}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with recipe.yaml, train.json and val.json, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name in ("train.json", "val.json"):
        write(tmp_path / name, CLASSES)
    return tmp_path


def train(output, *overrides, resume=False):
    return Trainer(load_recipe("recipe.yaml", list(overrides)), output, resume=resume).train()


def test_validation_under_other_ids_gives_the_same_numbers(project):
    wanted = train("runs/a")
    write(project / "val.json", [(7, "bird"), (8, "cat"), (9, "dog")])
    found = train("runs/b")
    assert wanted["bbox/AP"] is not None and found == wanted


def test_validation_with_other_names_stops_before_the_first_step(project):
    write(project / "val.json", [(1, "cat"), (2, "Dog"), (3, "bird")])
    with pytest.raises(DataError, match=r"(?s)do not match those of the training set .*train: Dog.*\n.*cat, dog, bird"):
        train("runs/a")
    assert not list((project / "runs/a").rglob("*.pth"))


def test_a_recipes_classes_hold_for_all_splits(project):
    chosen = "data.train={format: coco, annotations: train.json, images: ., classes: [dog, cat]}"
    found = train("runs/a", chosen)
    assert {key for key in found if key.startswith("bbox/AP-")} == {"bbox/AP-cat", "bbox/AP-dog"}


def test_a_checkpoint_is_evaluated_on_another_dataset_by_name(project, command_line):
    train("runs/a")
    write(project / "other.json", [(3, "dog"), (5, "bird"), (9, "cat")])
    both = ["recipe.yaml", "--weights", "runs/a/final.pth"]
    command_line("evaluate", *both, "--output", "same", cwd=project)
    other = "data.val={format: coco, annotations: other.json, images: .}"
    command_line("evaluate", *both, other, "--output", "other", cwd=project)
    same, other = (json.loads((project / name / "metrics.json").read_text()) for name in ("same", "other"))
    assert {key: same[key] for key in same if "/" in key} == {key: other[key] for key in other if "/" in key}

    write(project / "val.json", [(1, "cat"), (2, "dog"), (3, "wolf")])
    refused = command_line("evaluate", *both, "--output", "refused", cwd=project, code=2)
    assert "do not match those of the model: wolf" in refused.stderr and "cat, dog, bird" in refused.stderr


def test_a_run_is_not_resumed_on_other_classes(project):
    train("runs/a")
    write(project / "train.json", [(1, "dog"), (2, "cat"), (3, "bird")])
    with pytest.raises(CheckpointError, match=r"(?s)checkpoint: cat, dog, bird\n  training set: dog, cat, bird"):
        train("runs/a", "train.steps=2", resume=True)


def test_starting_weights_keep_the_rows_of_known_names(project, caplog):
    train("runs/a")
    write(project / "train.json", [(1, "wolf"), (2, "bird"), (3, "cat")])
    write(project / "val.json", [(1, "wolf"), (2, "bird"), (3, "cat")])
    with caplog.at_level(logging.INFO):
        recipe = load_recipe("recipe.yaml", ["model.weights=runs/a/final.pth"])
        model = Trainer(recipe, "runs/b").model
        Trainer(recipe, "runs/c").train()
    old = torch.load(project / "runs/a/final.pth", weights_only=True)["model"]["heads.boxes.cls_score.weight"]
    new = model.state_dict()["heads.boxes.cls_score.weight"]
    old, new = (weight.unflatten(0, (-1, 3)) for weight in (old, new))  # anchors, classes
    assert torch.equal(new[:, 1], old[:, 2]) and torch.equal(new[:, 2], old[:, 0])
    assert not any(torch.equal(new[:, 0], old[:, number]) for number in range(3))
    assert "classes kept by name: bird, cat" in caplog.text
    assert "classes start anew: wolf" in caplog.text and "classes of the weights, not used: dog" in caplog.text


FAST = ["yolo:yolov5n_masks_shapes_quick", "fcn:fcn_light_shapes_quick"]
OTHERS = [
    "rcnn:mask_rcnn_shapes_quick",
    "retinanet:retinanet_shapes_quick",
    "rcnn:keypoint_rcnn_shapes_quick",
    "yolo:yolov10n_shapes_quick",
    "unet:unetpp_shapes_quick",
    "panoptic:panoptic_deeplab_shapes_quick",
]


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_a_model_follows_its_classes_and_back(name):
    """Every head of the plugins says which rows are whose: no layer starts anew."""
    recipe, before = load_recipe(name), make_metadata()
    facts = {key: value for key, value in before.as_dict().items() if key != "name"}
    for key in ("thing_classes", "keypoint_names"):
        facts[key] = facts[key][1:] + facts[key][:1]
    facts["stuff_classes"] = [*facts["thing_classes"], *reversed(facts["stuff_classes"][3:])]
    after = Metadata("after").set(**facts)
    first, second = (build_model(recipe, metadata=one, pretrained=False) for one in (before, after))
    state = first.state_dict()
    there, anew = follow_classes(second, recipe, state, before, after)
    back, anew_too = follow_classes(first, recipe, there, after, before)
    assert not anew and not anew_too
    moved = [key for key in state if not torch.equal(there[key], state[key])]
    assert moved and all(torch.equal(back[key], state[key]) for key in state)


def test_rows_of_groups_with_numbers_before_and_after():
    # two anchors of (box, A, B, mask) to two of (box, C, B, A, mask)
    pairs = ClassRows(before=1, after=1).pairs((8, 10), 2, {0: 2, 1: 1})
    wanted = [(0, 0), (1, 3), (2, 2), (3, 4), (4, 5), (5, 8), (6, 7), (7, 9)]
    assert sorted(map(tuple, pairs.tolist())) == wanted
    assert ClassRows(width=4).pairs((8, 4), 1, {1: 0}).tolist() == [[4, 0], [5, 1], [6, 2], [7, 3]]
    assert ClassRows(before=1).pairs((8, 12), 4, {}).tolist() == [[0, 0], [2, 3], [4, 6], [6, 9]]
    assert ClassRows(width=4).pairs((7, 4), 1, {}) is None
