"""The classic pipeline: proposals, warped features, linear classifiers, and all of it on a few pictures."""

import json
import re
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="the classic pipeline needs scikit-image")
pytest.importorskip("sklearn", reason="the classic pipeline needs scikit-learn")

from vertebra.config import load_recipe
from vertebra.data import Dataset, Metadata
from vertebra.errors import DataError, RecipeError
from vertebra.evaluation import evaluate
from vertebra.models.backbones.resnet import ResNet
from vertebra.structures import Boxes, Instances, pairwise_iou
from vertebra_rcnn.classic import BoxRidges, ClassicRCNN, LinearClassifiers, selective_search
from vertebra_rcnn.classic.detector import _chosen
from vertebra_rcnn.classic.run import run_classic
from vertebra_rcnn.classic.warped import WarpedFeatures
from vertebra_rcnn.proposal_files import read_proposals


def picture():
    rng = np.random.default_rng(0)
    image = np.full((96, 128, 3), (40, 90, 60), np.int64)
    image[20:60, 30:70] = (200, 30, 30)
    image[50:86, 80:120] = (30, 30, 220)
    return (image + rng.integers(0, 12, image.shape)).astype(np.uint8)


def test_selective_search_finds_plain_objects_exactly():
    boxes = selective_search(picture(), np.random.default_rng(0))
    truth = torch.tensor([[30.0, 20, 70, 60], [80, 50, 120, 86]])
    assert pairwise_iou(truth, torch.from_numpy(boxes)).max(dim=1).values.min() > 0.95
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes)
    assert (boxes[:, 0] >= 0).all() and (boxes[:, 2] <= 128).all() and (boxes[:, 3] <= 96).all()


def test_selective_search_depends_on_its_seed_alone():
    first, second = (selective_search(picture(), np.random.default_rng(3)) for _ in range(2))
    assert (first == second).all()


def test_a_picture_of_one_color_has_hardly_a_proposal():
    assert len(selective_search(np.full((40, 50, 3), 7, np.uint8), np.random.default_rng(0))) <= 1


@pytest.mark.slow
def test_a_large_picture_is_searched_small_and_answered_in_its_own_pixels(monkeypatch):
    """At 8 times the size (1024 x 768) what is segmented has at most 500 pixels a side, and the objects are found."""
    import skimage.segmentation

    seen, real = [], skimage.segmentation.felzenszwalb
    monkeypatch.setattr(
        skimage.segmentation, "felzenszwalb", lambda image, **kw: seen.append(image.shape) or real(image, **kw)
    )
    large = picture().repeat(8, axis=0).repeat(8, axis=1)
    boxes = selective_search(large, np.random.default_rng(0))
    assert set(seen) == {(375, 500, 3)}
    truth = torch.tensor([[30.0, 20, 70, 60], [80, 50, 120, 86]]) * 8
    assert pairwise_iou(truth, torch.from_numpy(boxes)).max(dim=1).values.min() > 0.95
    assert boxes[:, 2].max() <= 1024 and boxes[:, 3].max() <= 768


def test_a_class_without_examples_is_never_found():
    features, rng = np.random.default_rng(0).normal(size=(50, 4)), np.random.default_rng(0)
    overlaps = np.zeros((50, 2))
    overlaps[:10, 0] = 1
    scores = LinearClassifiers.fit(features, overlaps, overlaps > 0.5, rng).scores(features)
    assert torch.from_numpy(scores[:, 1]).sigmoid().max() < 1e-6


def test_what_is_learned_from_is_bounded_and_prefers_what_overlaps():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(100, 1) + torch.arange(100.0)[:, None] * 2.5
    chosen = _chosen(boxes, boxes[40:41], 20, np.random.default_rng(0))
    assert len(chosen) == len({tuple(box) for box in chosen.tolist()}) == 20
    near = pairwise_iou(boxes, boxes[40:41])[:, 0] >= 0.3
    assert near.sum() == 3 and {tuple(box) for box in boxes[near].tolist()} <= {tuple(box) for box in chosen.tolist()}
    assert _chosen(boxes, boxes[:0], 200, np.random.default_rng(0)) is boxes


def test_warped_features_of_no_boxes_and_of_boxes_at_the_border():
    backbone = ResNet(depth=18, norm="bn", out_features=["res3"], stem_out_channels=64)
    mean, std = torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0)
    features = WarpedFeatures(backbone, mean, std, size=32, context=2, cells=2)
    image = torch.from_numpy(picture()).permute(2, 0, 1)
    assert features(image, torch.zeros(0, 4)).shape == (0, features.out_channels)
    found = features(image, torch.tensor([[0.0, 0, 128, 96], [120, 90, 128, 96]]))
    assert found.shape == (2, features.out_channels) and torch.isfinite(found).all()


def test_classifiers_and_ridges_learn_what_can_be_learned():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 600)  # 2 is background
    features = rng.normal(size=(600, 8)) + np.eye(8)[label] * 6
    overlaps = np.stack([(label == k) * 1.0 for k in range(2)], axis=1)
    classifiers = LinearClassifiers.fit(features, overlaps, overlaps > 0.5, rng, cost=0.1)
    scores = classifiers.scores(features)
    for k in range(2):
        assert scores[label == k, k].min() > scores[label != k, k].mean()
        assert ((scores[:, k] > 0) == (label == k)).mean() > 0.97
    boxes = np.tile([10.0, 10, 30, 30], (600, 1))
    shift = features[:, :1] * 0.5  # what is to be learned: how far to the right
    truth = np.repeat((boxes + shift * np.array([1, 0, 1, 0]))[:, None], 2, axis=1)
    ridges = BoxRidges.fit(features, boxes, truth, np.ones((600, 2)), strength=0.1)
    better = ridges.refined(features, torch.from_numpy(boxes).float())
    assert np.abs(better[:, 0].numpy() - truth[:, 0]).max() < 0.2


class ByChance(torch.nn.Module):
    """The same proposals, with classes and scores drawn at random: what the pipeline has to beat."""

    device = torch.device("cpu")

    def __init__(self, num_classes, most):
        super().__init__()
        self.num_classes, self.most = num_classes, most

    def forward(self, inputs):
        return [{"instances": self.found(sample["image"], sample["height"], sample["width"])} for sample in inputs]

    def found(self, image, height, width):
        generator = torch.Generator().manual_seed(0)
        boxes = selective_search(image.permute(1, 2, 0).numpy(), np.random.default_rng(0))[: self.most]
        scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
        classes = torch.randint(self.num_classes, (len(boxes),), generator=generator)
        return Instances(
            (height, width), pred_boxes=Boxes(torch.from_numpy(boxes)), scores=scores, pred_classes=classes
        )


@pytest.mark.e2e
def test_the_commands_train_evaluate_and_write_better_than_chance(command_line, tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    recipe = "rcnn:faster_rcnn_shapes_quick"
    few = [f"data.{split}.{key}" for split in ("train", "val") for key in ("images=60", "val_images=20")]
    few += ["evaluate.report=false"]
    run, options = tmp_path / "run", ["--proposals", "120", "--size", "64"]
    assert "learned from 60 images" in command_line("rcnn", "classic", recipe, *few, "-o", run, *options).stdout
    assert {path.name for path in run.iterdir()} == {"classic.npz", "recipe.yaml", "evaluation"}
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    chance = evaluate(ByChance(3, 120), load_recipe(recipe, few), split="val", output_dir=tmp_path / "chance").metrics
    assert metrics["bbox/AP50"] > 2 * chance["bbox/AP50"]

    again = command_line("rcnn", "classic", recipe, *few, "-o", run, code=2)
    assert isinstance(again.error, RecipeError) and "is not empty" in again.stderr


@pytest.mark.e2e
def test_proposals_are_written_for_fast_rcnn_and_never_over_a_file(command_line, tmp_path):
    few = ["data.val.images=12", "data.val.val_images=4"]
    command = ["rcnn", "proposals", "rcnn:faster_rcnn_shapes_quick", *few, "--split", "val", "--most", "50"]
    cache = {"VERTEBRA_CACHE": tmp_path / "cache"}
    said = command_line(*command, "-o", tmp_path / "p.npz", **cache).stdout
    found = read_proposals(tmp_path / "p.npz")
    assert len(found) == 4 and max(len(boxes) for boxes, _ in found.values()) <= 50
    assert f"{sum(len(boxes) for boxes, _ in found.values())} proposals of 4 images" in said
    for name, message in (("p.npz", "exists; move it"), ("p.txt", "name it .*p.npz")):
        refused = command_line(*command, "-o", tmp_path / name, code=2, **cache)
        assert isinstance(refused.error, RecipeError)
        assert re.search(message, refused.stderr)


def test_missing_libraries_are_named_with_what_brings_them(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DataError, match=r"scikit-image and scikit-learn.*pip install 'vertebra-rcnn\[classic\]'"):
        run_classic("rcnn:faster_rcnn_shapes_quick", output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_objects_is_named():
    features = WarpedFeatures(
        ResNet(depth=18, norm="bn", out_features=["res2"]),
        torch.zeros(3, 1, 1),
        torch.ones(3, 1, 1),
        size=32,
        context=2,
    )
    recipe = load_recipe("rcnn:faster_rcnn_shapes_quick")
    with pytest.raises(DataError, match="by hand: no image has a ground-truth box"):
        ClassicRCNN(features, 3).fit(Dataset([], Metadata("by hand").set(thing_classes=["a", "b", "c"])), recipe)
    with pytest.raises(ValueError, match="is not trained yet"):
        ClassicRCNN(features, 3)([{"image": torch.zeros(3, 20, 20, dtype=torch.uint8)}])


def test_what_was_learned_is_saved_and_a_picture_without_proposals_has_no_detections(tmp_path):
    torch.manual_seed(0)
    backbone = ResNet(depth=18, norm="bn", out_features=["res2"])
    features = WarpedFeatures(backbone, torch.zeros(3, 1, 1), torch.full((3, 1, 1), 60.0), size=32, context=2, cells=1)
    rng, one, other = np.random.default_rng(0), ClassicRCNN(features, 2), ClassicRCNN(features, 2)
    rows = rng.normal(size=(60, features.out_channels)).astype(np.float32)
    overlaps = np.repeat([[1.0, 0], [0, 1], [0, 0]], 20, axis=0)
    boxes = np.tile(np.array([[10, 10, 30, 30]], np.float32), (60, 1))
    one.classifiers = LinearClassifiers.fit(rows, overlaps, overlaps > 0.5, rng)
    one.ridges = BoxRidges.fit(rows, boxes, np.repeat(boxes[:, None], 2, axis=1), overlaps)
    one.save(tmp_path / "classic.npz")
    other.load(tmp_path / "classic.npz")
    sample = {"image": torch.from_numpy(picture()).permute(2, 0, 1), "height": 96, "width": 128}
    first, second = (model([sample])[0]["instances"] for model in (one, other))
    assert len(first) and torch.equal(first.pred_boxes.tensor, second.pred_boxes.tensor)
    other.max_detections = 1
    assert len(other([sample])[0]["instances"]) == 1 < len(first)
    plain = {"image": torch.full((3, 5, 5), 7, dtype=torch.uint8), "height": 10, "width": 10}
    assert len(one([plain])[0]["instances"]) == 0
    with pytest.raises(DataError, match="is for 2 classes and 64 features, this model has 3"):
        ClassicRCNN(features, 3).load(tmp_path / "classic.npz")
