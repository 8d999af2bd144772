"""docs/examples/depth.py: depth beside boxes, with a field, a head and an evaluator of its own."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from whole_path import EXAMPLES, FEW, code_lines, predicted, trained

from vertebra import EVALUATORS, HEADS, ShapeSpec, load_recipe
from vertebra.testing import HeadConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "depth.yaml")
SMALL = ("model.neck.out_channels=8", "model.heads.depth.width=8", "model.backbone.out_features=[res4, res5]")


@pytest.mark.slow
class TestDepthHead(HeadConformance):
    component = "DepthHead"
    recipe = RECIPE
    overrides = (*SMALL, *FEW)
    data = "recipe"
    test_overfits_eight_images = None  # measures boxes and labels, which are not what this head predicts


def test_it_is_one_file():
    assert code_lines(EXAMPLES / "depth.py") <= 150


@dataclass
class Depths:
    """What the head's losses read of a batch."""

    depth: torch.Tensor

    @property
    def padded_size(self):
        return tuple(self.depth.shape[-2:])

    def field(self, name):
        return getattr(self, name)


@pytest.fixture
def parts():
    load_recipe(RECIPE)
    head = HEADS.get("DepthHead")({"p2": ShapeSpec(8, 4)}, width=8, invariance=0.5)
    return head, EVALUATORS.get("DepthEvaluator")()


def test_the_loss_is_the_papers_and_unknown_pixels_have_no_part(parts):
    head, _ = parts
    truth = torch.tensor([[[1.0, 1.0], [1.0, float("nan")]]])
    log_depth = torch.tensor([[[[0.0, 1.0], [2.0, 50.0]]]], requires_grad=True)
    loss = head.losses(log_depth, Depths(truth))["loss_depth"]
    # errors 0, 1, 2: mean square 5 / 3, mean 1
    assert loss.item() == pytest.approx(5 / 3 - 0.5 * 1)
    loss.backward()
    assert log_depth.grad.isfinite().all() and log_depth.grad[0, 0, 1, 1] == 0


def test_a_common_factor_costs_nothing_at_full_invariance(parts):
    head, _ = parts
    head.invariance = 1.0
    truth = torch.rand(1, 4, 4) + 1
    assert head.losses((3 * truth[None]).log(), Depths(truth))["loss_depth"].item() == pytest.approx(0, abs=1e-6)


def test_the_evaluators_numbers_by_hand(parts, tmp_path):
    _, evaluator = parts
    np.save(tmp_path / "truth.npy", np.array([[2.0, 4.0], [5.0, np.nan]], np.float32))
    evaluator.reset()
    predicted_depth = torch.tensor([[2.0, 5.0], [4.0, 9.0]])
    evaluator.process([{"file_name": "a", "depth": tmp_path / "truth.npy"}], [{"depth": predicted_depth}])
    metrics = evaluator.evaluate()
    assert metrics["depth/abs_rel"] == pytest.approx((0 + 1 / 4 + 1 / 5) / 3)
    assert metrics["depth/rmse"] == pytest.approx((2 / 3) ** 0.5)
    assert metrics["depth/within_1.25"] == pytest.approx(1 / 3)  # 1.25 itself is not within


def test_no_known_pixel_gives_a_reason(parts):
    _, evaluator = parts
    evaluator.reset()
    assert set(evaluator.evaluate().values()) == {None} and "depth/rmse" in evaluator.reasons


@pytest.mark.e2e
def test_its_whole_path(tmp_path):
    settings = [f"data.{split}.size=64" for split in ("train", "val")]
    metrics = trained("depth", tmp_path, *SMALL, *settings)
    assert {"depth/abs_rel", "depth/rmse", "depth/within_1.25", "bbox/AP"} <= metrics.keys()
    assert list((tmp_path / "run/evaluation/pictures/depth").glob("*.png"))
    images = load_recipe(tmp_path / "run/recipe.yaml").data.val.build().load()
    written = predicted(tmp_path, [images[0]["file_name"]])
    assert any(path.name.endswith("-depth.png") for path in written.files)
    assert np.load(next((tmp_path / "predictions/arrays").iterdir()))["depth"].shape == (64, 64)
