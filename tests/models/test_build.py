"""build_model: from a recipe to a Model, with what the graph and the dataset know handed on."""

import json
from types import SimpleNamespace

import pytest
import torch

from vertebra.config import load_recipe
from vertebra.errors import CheckpointError, RecipeError
from vertebra.models import Head, ShapeSpec, build_model
from vertebra.models.norms import FrozenBatchNorm2d
from vertebra.registry import HEADS

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, out_features: [res3, res4, res5]}
  neck: {name: FPN, out_channels: 32, top_block: {name: p6p7, in_feature: p5}}
  heads:
    counts: {name: HeadOfBuildTests}
  pixel_mean: [1, 2, 3]
  pixel_std: [4, 5, 6]
  pixel_order: bgr
data:
  root: ROOT
  val: {format: coco, annotations: val.json, images: .}
"""


@HEADS.register()
class HeadOfBuildTests(Head):
    """Scores of the coarsest level, averaged."""

    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.input_shape, self.num_classes, self.scale = input_shape, num_classes, scale
        self.score = torch.nn.Conv2d(input_shape["p7"].channels, num_classes, 1)

    def forward(self, features):
        return self.score(features["p7"]).mean(dim=(2, 3))

    def losses(self, raw, batch):
        return {"score": raw.square().mean() * self.scale}

    def predict(self, raw, batch):
        return [{"scores": one} for one in raw]


@pytest.fixture
def recipe(tmp_path):
    def load(*overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.replace("ROOT", str(tmp_path)))
        return load_recipe(path, overrides)

    return load


def test_every_part_is_built_and_knows_what_it_needs(recipe):
    model = build_model(recipe("model.heads.counts.scale=0.5"), num_classes=7)
    head = model.heads["counts"]
    assert head.num_classes == 7 and head.scale == 0.5
    assert list(head.input_shape) == ["p3", "p4", "p5", "p6", "p7"]
    assert head.input_shape["p7"] == ShapeSpec(channels=32, stride=128)
    assert model.neck.top_block.p6.in_channels == 32  # made of p5
    assert isinstance(model.backbone.stem.conv1.norm, FrozenBatchNorm2d)
    assert model.pixel_order == "bgr" and model.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert model.size_divisibility == 32


def test_a_built_model_trains_and_predicts(recipe):
    model = build_model(recipe(), num_classes=7)
    inputs = [{"image": torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8)}]
    losses = model(inputs)
    assert list(losses) == ["counts/score"]
    losses["counts/score"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())
    with torch.no_grad():
        assert model.eval()(inputs)[0]["scores"].shape == (7,)


def test_classes_come_from_metadata(recipe):
    assert build_model(recipe(), metadata=SimpleNamespace(thing_classes=list("abc"))).heads["counts"].num_classes == 3
    assert build_model(recipe(), metadata=SimpleNamespace(stuff_classes=list("ab"))).heads["counts"].num_classes == 2


def test_classes_come_from_the_recipes_dataset_where_nothing_else_says(recipe, tmp_path):
    categories = [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}]
    image = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "val.json").write_text(json.dumps({"images": [image], "annotations": [], "categories": categories}))
    assert build_model(recipe()).heads["counts"].num_classes == 2
    assert build_model(recipe("model.heads.counts.num_classes=4")).heads["counts"].num_classes == 4


def test_without_a_dataset_the_error_says_who_asks_for_classes(recipe):
    with pytest.raises(RecipeError, match=r"recipe.yaml:6: head HeadOfBuildTests needs num_classes(.|\n)*val.json"):
        build_model(recipe())
    with pytest.raises(RecipeError, match=r"names no dataset(.|\n)*Write its num_classes"):
        build_model(recipe("data.val=null"))


def test_starting_weights_are_read_only_where_they_are_wanted(recipe):
    with_weights = recipe("model.backbone.weights=nowhere/r18.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        build_model(with_weights, num_classes=2)
    assert build_model(with_weights, num_classes=2, pretrained=False).heads["counts"].num_classes == 2


def test_a_seed_gives_the_same_weights_again(recipe):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_model(recipe(), num_classes=2).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_detection_head_with_too_few_classes_is_refused_with_the_place(recipe):
    metadata = SimpleNamespace(thing_classes=["a", "b", "c"])

    class Detects(HeadOfBuildTests):
        task_outputs = ("instances",)

    HEADS.register(Detects, name="DetectsInBuildTests")
    with pytest.raises(RecipeError, match=r"override .*: model\.heads\.counts\.num_classes is 2, .* has 3 classes"):
        build_model(recipe("model.heads.counts={name: DetectsInBuildTests, num_classes: 2}"), metadata=metadata)
    more = build_model(recipe("model.heads.counts={name: DetectsInBuildTests, num_classes: 9}"), metadata=metadata)
    assert more.heads["counts"].num_classes == 9
