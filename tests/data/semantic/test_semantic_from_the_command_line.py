"""A semantic dataset with difficult images, from looking at it to its evaluation, through the command line."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra import Predictor
from vertebra.errors import DataError, RecipeError
from vertebra.registry import REGISTRIES

HEAD = '''
from torch import nn
from vertebra import Head
from vertebra.models.losses import CrossEntropy
from vertebra.models.semantic import semantic_losses, semantic_predictions
from vertebra.registry import HEADS


@HEADS.register()
class ScoreHead(Head):
    """A score for each class from the finest features."""

    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, input_shape, num_classes: int):
        super().__init__()
        self.score = nn.Conv2d(input_shape["res2"].channels, num_classes, 1)
        self.loss = CrossEntropy()

    def forward(self, features):
        return self.score(features["res2"])

    def losses(self, raw, batch):
        return semantic_losses(raw, batch, self.loss)

    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)
'''

RECIPE = """
plugins: [./score_head.py]
model:
  backbone: {name: ResNet, depth: 18, norm: bn, freeze_at: 0, out_features: [res2]}
  heads: {classes: ScoreHead}
data:
  train: &pictures
    format: semantic_folder
    images: images
    masks: masks
    classes: [dark, light]
    label_map: {10: 0, 20: 1, 7: 255}
  val: *pictures
  train_transforms:
    - {name: RandomScaleCrop, size: [24, 24]}
    - {name: ElasticDeform, sigma: 2}
    - {name: RandomFlip}
  eval_transforms: []
  aspect_ratio_grouping: false
  workers: 0
train:
  steps: 6
  batch_size: 3
  optimizer: {name: AdamW, lr: 0.005}
  amp: "off"
evaluate: {evaluators: [SemSegEvaluator], pictures: 2, amp: "off"}
"""


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """A folder with the dataset, recipe.yaml and the run `run`; it is the current directory."""
    folder = tmp_path_factory.mktemp("semantic")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"large": (60, 50), "small": (9, 40), "pixel": (1, 1), "ignored": (30, 30)}.items():
        light = rng.random(size) < 0.5
        light[: size[0] // 2] = True
        labels = np.where(light, 20, 10)
        labels[-1:] = 7
        if name in ("ignored", "pixel"):
            labels[:] = 7
        Image.fromarray(np.repeat(light[..., None] * 200, 3, 2).astype(np.uint8)).save(folder / f"images/{name}.png")
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"masks/{name}.png")
    (folder / "score_head.py").write_text(HEAD)
    (folder / "recipe.yaml").write_text(RECIPE)
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command("train", "recipe.yaml", "--output", "run")
        yield folder
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]


@pytest.fixture(scope="module")
def command(command_line):
    """command("data", "info", "recipe.yaml"): what the command prints."""
    return lambda *words: command_line(*words).stdout


@pytest.fixture
def evaluated(command, trained):
    """evaluated("plain", "null"): the metrics of an evaluation into a folder of that name, predicting in that way."""

    def run(name, inference):
        command(
            *("evaluate", "recipe.yaml", f"evaluate.inference={inference}", "evaluate.report=false"),
            *("--weights", "run/final.pth", "--output", name),
        )
        return json.loads((trained / name / "metrics.json").read_text())

    return run


def test_a_training_with_single_pixels_and_ignored_images_has_finite_losses(trained):
    records = [json.loads(line) for line in (trained / "run/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses and np.isfinite(losses).all()


def test_the_training_leaves_an_evaluation_with_its_report(trained):
    metrics = json.loads((trained / "run/evaluation/metrics.json").read_text())
    assert 0 <= metrics["sem_seg/mIoU"] <= 1
    assert metrics["sem_seg/IoU-light"] is not None
    report = (trained / "run/evaluation/report.html").read_text()
    assert "light" in report and "large.png" in report


def test_windows_that_hold_every_image_change_no_number(trained, evaluated):
    plain, windows = evaluated("plain", "null"), evaluated("whole", "{name: SlidingWindow, window: 64}")
    assert _numbers(plain) == _numbers(windows)
    assert _numbers(plain) == _numbers(json.loads((trained / "run/evaluation/metrics.json").read_text()))


def test_windows_and_scales_take_every_image(evaluated):
    modes = (
        "[{name: MultiScaleFlip, scales: [0.5, 1.0]}, {name: SlidingWindow, window: 16, borders: mirror, margin: 2}]"
    )
    metrics = evaluated("modes", modes)
    assert metrics["info"]["images"] == 4 and 0 <= metrics["sem_seg/mIoU"] <= 1


def _numbers(metrics):
    return {key: value for key, value in metrics.items() if key.startswith("sem_seg/")}


def test_a_wrong_way_to_predict_is_told_before_the_training(command_line, trained):
    inference = "evaluate.inference={name: SlidingWindow, window: 0}"
    failed = command_line("train", "recipe.yaml", inference, "--output", "never", code=2)
    assert isinstance(failed.error, RecipeError) and "window is 0" in failed.stderr
    assert not (trained / "never/final.pth").exists()


def test_a_predictor_uses_the_recipes_way(trained):
    from vertebra import load_recipe

    plain = Predictor("recipe.yaml", "run/final.pth")
    recipe = load_recipe("recipe.yaml", ["evaluate.inference={name: SlidingWindow, window: 8, overlap: 0}"])
    windows = Predictor(recipe, "run/final.pth")
    for size in ((1, 1), (40, 30)):
        image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        one, two = plain(image)["sem_seg"], windows(image)["sem_seg"]
        assert one.shape == two.shape == (2, *size)
        assert torch.equal(one, two) == (size == (1, 1))


def test_labels_outside_the_classes_stop_the_training_with_file_values_and_remedy(command_line, trained):
    (trained / "incomplete.yaml").write_text(RECIPE.replace(", 7: 255", ""))
    words = r"(?s)masks/.*\.png: labels 7 on .* pixels belong to no class: label_map has .*Add them"
    failed = command_line("train", "incomplete.yaml", "--output", "stopped", code=2)
    assert isinstance(failed.error, DataError) and re.search(words, failed.stderr)


def test_info_counts_pixels_and_says_what_is_ignored(command, trained):
    text = command("data", "info", "recipe.yaml")
    assert "labels     4 files, 2 classes" in text
    assert "objects" not in text
    (light,) = (line.split() for line in text.splitlines() if line.startswith("light"))
    assert 70 < float(light[1].rstrip("%")) < 80 and light[2] == "2"


def test_info_of_a_large_dataset_reads_some_files(trained):
    from vertebra import load_recipe
    from vertebra.data import load_split
    from vertebra.data.semantic.label_facts import count_labels

    dataset = load_split(load_recipe("recipe.yaml"), "train")
    facts = count_labels(dataset, limit=2)
    assert (facts.files, facts.of_files) == (2, 4)
    assert facts.pixels.sum() == 30 * 30 + 9 * 40  # the first and the last by name


def test_show_draws_labels_where_there_are_no_objects(command, command_line, trained):
    assert "sheet.png" in command("data", "show", "recipe.yaml", "-o", "sheet.png", "--number", "2")
    assert command("data", "show", "recipe.yaml", "-o", "same.png", "--number", "2", "--layer", "semantic")
    assert (trained / "sheet.png").read_bytes() == (trained / "same.png").read_bytes()
    failed = command_line("data", "show", "recipe.yaml", "-o", "never.png", "--layer", "depth", code=2)
    assert isinstance(failed.error, DataError) and "--layer is 'depth'" in failed.stderr
