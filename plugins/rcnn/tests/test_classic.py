"""The classic pipeline: proposals, warped features, linear classifiers, and all of it on a few pictures."""

import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="the classic pipeline needs scikit-image")
pytest.importorskip("sklearn", reason="the classic pipeline needs scikit-learn")

from vertebra.models.backbones.resnet import ResNet
from vertebra.structures import pairwise_iou
from vertebra_rcnn.classic import BoxRidges, LinearClassifiers, selective_search
from vertebra_rcnn.classic.warped import WarpedFeatures


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


@pytest.mark.slow
def test_the_command_trains_evaluates_and_writes(tmp_path):
    from vertebra_rcnn.classic.run import run_classic, write_selective_search
    from vertebra_rcnn.proposal_files import read_proposals

    few = ["data.train.images=12", "data.val.images=12", "data.train.val_images=4", "data.val.val_images=4"]
    few += ["evaluate.report=false"]
    metrics = run_classic("rcnn:faster_rcnn_shapes_quick", few, tmp_path / "run", max_proposals=60, size=48)
    assert metrics["bbox/AP50"] is not None
    assert (tmp_path / "run/classic.npz").is_file() and (tmp_path / "run/evaluation/metrics.json").is_file()
    write_selective_search("rcnn:faster_rcnn_shapes_quick", few, tmp_path / "p.npz", split="val", most=50)
    found = read_proposals(tmp_path / "p.npz")
    assert len(found) == 4 and max(len(boxes) for boxes, _ in found.values()) <= 50
