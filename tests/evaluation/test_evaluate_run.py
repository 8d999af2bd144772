"""The evaluation loop, and what it leaves in its folder."""

import base64
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vertebra.config import load_recipe
from vertebra.data import Dataset
from vertebra.errors import RecipeError
from vertebra.evaluation import Evaluator, evaluate
from vertebra.evaluation.loop import predict_all

BOX = (10, 10, 60, 60)
RECIPE = """
output: {output}
model:
  backbone: {{name: ResNet, depth: 18, out_features: [res3]}}
  heads: {{}}
data: {{workers: 0}}
evaluate: {{pictures: 3, amp: "off", batch_size: 2}}
"""


class Oracle(nn.Module):
    """Finds the object in each image but those that `misses` names."""

    def __init__(self, by_hand, misses=()):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.frozen = nn.BatchNorm2d(2).eval()
        self.by_hand = by_hand
        self.misses = misses
        self.modes = set()

    def forward(self, inputs):
        self.modes.add((self.training, torch.is_inference_mode_enabled()))
        return [self.by_hand.output([] if x["image_id"] in self.misses else [(BOX, 0.9, 0)]) for x in inputs]


@pytest.fixture
def recipe(tmp_path):
    """A recipe as loaded, but for the model, which nothing here builds."""
    path = tmp_path / "small.yaml"
    text = RECIPE.format(output=tmp_path / "runs").replace("heads: {}", "heads: {boxes: {name: RetinaNetHead}}")
    path.write_text(text)
    return load_recipe(path)


@pytest.fixture
def dataset(by_hand, tmp_path):
    """Five pictures with one object each."""
    made = by_hand.dataset({i: [(BOX, 0)] for i in range(5)}, ["cat", "dog"])
    dicts = []
    for record in made:
        record["file_name"] = str(tmp_path / f"{record['image_id']}.png")
        Image.fromarray(np.full((100, 100, 3), 40 * record["image_id"], np.uint8)).save(record["file_name"])
        dicts.append(record)
    return Dataset(dicts, made.metadata)


def test_metrics_files_report_and_pictures_are_written(recipe, dataset, by_hand, tmp_path, capsys):
    result = evaluate(Oracle(by_hand, misses={3}), recipe, dataset=dataset, output_dir=tmp_path / "out")
    assert capsys.readouterr().out == ""
    assert result.metrics["bbox/AR100"] == pytest.approx(0.8)
    assert result.info["images"] == 5 and result.info["images_per_second"] > 0 and result.info["precision"] == "fp32"

    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {key: value for key, value in written.items() if "/" in key} == result.metrics
    assert written["reasons"] == result.reasons and written["bbox/APs"] is None and written["reasons"]["bbox/APs"]
    assert {"metrics", "report", "plots", "pictures", "coco_results"} <= result.paths.keys()
    assert all(path.exists() for path in result.paths.values())
    names = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert len(names) == 3 and names[0] == "01_3.png"  # the one with a miss comes first
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        "bbox_pr_curves.png",
        "bbox_class_ap.png",
        "bbox_scores.png",
        "bbox_errors.png",
        "bbox_confusion.png",
        "bbox_calibration.png",
        "dataset_sizes.png",
    }
    assert [path.name for path in result.paths["mistakes"].iterdir()] == ["missed_01.png"]


def test_report_is_one_file_that_needs_nothing_else(recipe, dataset, by_hand, tmp_path):
    result = evaluate(Oracle(by_hand), recipe, dataset=dataset, output_dir=tmp_path / "out")
    page = result.paths["report"].read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert (
        not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", page) and "http://" not in page and "https://" not in page
    )
    assert page.count("<script") == 1 and "<script src" not in page
    images = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    assert len(images) == 10  # seven plots, three pictures
    assert all(base64.b64decode(image, validate=True) for image in images)
    text = re.sub(r'src="[^"]*"|<script>.*?</script>', "", page, flags=re.DOTALL)
    assert "-1.000" not in text and "NaN" not in text and "None" not in text
    assert "the ground truth has no objects of class dog" in text and "RetinaNetHead" in text
    assert page.count("<section") == page.count("</section>") and page.count("<div") == page.count("</div>")


def test_report_false_writes_numbers_alone(recipe, dataset, by_hand, tmp_path):
    result = evaluate(Oracle(by_hand), recipe, dataset=dataset, output_dir=tmp_path / "out", report=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "coco_evaluation.json",
        "coco_ground_truth.json",
        "coco_results.json",
        "metrics.json",
    ]
    assert "report" not in result.paths


def test_default_folder_is_the_runs(recipe, dataset, by_hand, tmp_path):
    evaluate(Oracle(by_hand), recipe, dataset=dataset, report=False)
    assert (tmp_path / "runs" / "evaluation" / "metrics.json").is_file()


def test_model_is_evaluated_without_gradients_and_its_modes_come_back(recipe, dataset, by_hand, tmp_path):
    model = Oracle(by_hand)
    model.train()
    model.frozen.eval()
    evaluate(model, recipe, dataset=dataset, output_dir=tmp_path / "out", report=False)
    assert model.modes == {(False, True)}
    assert model.training and not model.frozen.training


def test_dataset_without_ground_truth_is_no_error(recipe, dataset, by_hand, tmp_path):
    dicts = [{key: value for key, value in record.items() if key != "annotations"} for record in dataset]
    bare = Dataset(dicts, dataset.metadata)
    result = evaluate(Oracle(by_hand), recipe, dataset=bare, output_dir=tmp_path / "out")
    assert set(result.metrics.values()) == {None} and result.reasons.keys() == result.metrics.keys()
    assert len(list(result.paths["pictures"].iterdir())) == 3
    assert "no ground truth annotations" in result.paths["report"].read_text(encoding="utf-8")


def test_split_that_the_recipe_lacks_is_said(recipe, by_hand):
    with pytest.raises(RecipeError, match=r"data\.test"):
        evaluate(Oracle(by_hand), recipe, split="test")
    with pytest.raises(RecipeError, match="tets"):
        evaluate(Oracle(by_hand), recipe, split="tets")


def test_two_evaluators_with_the_same_numbers_are_an_error(recipe, dataset, by_hand, tmp_path):
    twice = SimpleNamespace(**vars(recipe.evaluate))
    twice.evaluators = recipe.evaluate.evaluators * 2
    changed = SimpleNamespace(**vars(recipe))
    changed.evaluate = twice
    with pytest.raises(RecipeError, match="two evaluators return bbox/AP"):
        evaluate(Oracle(by_hand), changed, dataset=dataset, output_dir=tmp_path / "out")


def test_progress_counts_up_to_all_images(by_hand):
    class Loader(list):
        indices = range(5)

    class Counter(Evaluator):
        def reset(self):
            self.seen = 0

        def process(self, inputs, outputs):
            self.seen += len(outputs)

    counter, calls = Counter(), []
    loader = Loader([[{"image_id": 0}, {"image_id": 1}], [{"image_id": 2}, {"image_id": 3}], [{"image_id": 4}]])
    timing = predict_all(Oracle(by_hand), loader, [counter], progress=lambda *done: calls.append(done))
    assert calls == [(2, 5), (4, 5), (5, 5)] and counter.seen == timing.images == 5
    assert timing.data + timing.model <= timing.total
