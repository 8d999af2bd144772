"""Heads, losses and backbones that break their contract: one message by the first step that names the part."""

import pytest

from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.errors import PluginError, RecipeError

PLUGIN = """
import torch
from torch import nn
from vertebra.models import Backbone, DetectionHead, Head, Neck, ShapeSpec
from vertebra.registry import BACKBONES, HEADS, NECKS


@HEADS.register()
class Base(Head):
    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, input_shape, num_classes: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(next(iter(input_shape.values())).channels, 1, 1)

    def forward(self, features):
        return self.score(next(iter(features.values())))

    def losses(self, raw, batch):
        return {"size": raw.square().mean()}

    def predict(self, raw, batch):
        return [{"sem_seg": one} for one in raw]


@HEADS.register()
class NotADict(Base):
    def losses(self, raw, batch):
        return raw.square().mean()


@HEADS.register()
class NothingReturned(Base):
    def losses(self, raw, batch):
        raw.square().mean()


@HEADS.register()
class NotScalar(Base):
    def losses(self, raw, batch):
        return {"size": raw.square()}


@HEADS.register()
class Number(Base):
    def losses(self, raw, batch):
        return {"size": float(raw.square().mean())}


@HEADS.register()
class Detached(Base):
    def losses(self, raw, batch):
        return {"size": raw.square().mean().detach()}


@HEADS.register()
class OneDetached(Base):
    def losses(self, raw, batch):
        return {"size": raw.square().mean(), "other": torch.tensor(2.0)}


@HEADS.register()
class ConstantZero(Base):
    def losses(self, raw, batch):
        return {"size": raw.square().mean(), "no_objects": torch.zeros(())}


@HEADS.register()
class HalfFrozen(Base):
    def __init__(self, input_shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.frozen = nn.Conv2d(1, 1, 1).requires_grad_(False)

    def losses(self, raw, batch):
        return {"size": raw.square().mean(), "frozen": self.frozen(raw.detach()).square().mean()}


@HEADS.register()
class OneElement(Base):
    def losses(self, raw, batch):
        return {"size": raw.square().mean().view(1)}


@HEADS.register()
class OtherKey(Base):
    def forward(self, features):
        settings = {}
        return self.score(next(iter(features.values()))) * settings["temperature"]


@HEADS.register()
class WrongLevel(Base):
    def forward(self, features):
        return self.score(features["p9"])


@HEADS.register()
class WrongLevelAtStart(Base):
    def __init__(self, input_shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.channels = input_shape["p9"].channels


@HEADS.register()
class NoForward(Head):
    losses, predict = Base.losses, Base.predict

    def __init__(self, input_shape) -> None:
        super().__init__()


@HEADS.register()
class NoLosses(Base):
    losses = Head.losses


@HEADS.register()
class NoPredict(Base):
    predict = Head.predict


@HEADS.register()
class NoCandidates(DetectionHead):
    def __init__(self, input_shape, num_classes: int) -> None:
        super().__init__(num_classes)
        self.score = nn.Conv2d(next(iter(input_shape.values())).channels, 1, 1)

    forward, losses = Base.forward, Base.losses


@HEADS.register()
class Typo(Base):
    def losses(self, raw, batch):
        return {"size": raw.sqare().mean()}


@HEADS.register()
class OneValuePerChannel(Base):
    def __init__(self, input_shape, num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, features):
        return self.norm(super().forward(features).mean(dim=(2, 3), keepdim=True))


@BACKBONES.register()
class Wrapper(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 1)
        self.output_shape = lambda: {"a": ShapeSpec(4, 1)}
        self.forward = lambda images: {"a": self.inner(images)}


@BACKBONES.register()
class NoShape(Backbone):
    def forward(self, images):
        return {"a": images}


@BACKBONES.register()
class OddShape(NoShape):
    def output_shape(self):
        return {"a": (3, 1)}


@BACKBONES.register()
class NoForwardOfABackbone(Backbone):
    def output_shape(self):
        return {"a": ShapeSpec(3, 1)}


@NECKS.register()
class NoShapeOfANeck(Neck):
    def __init__(self, input_shape) -> None:
        super().__init__()
"""
RECIPE = """\
plugins: [broken.py]
model:
  backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res2, res3]}
  heads:
    pixels:
      name: Base
data:
  train: {format: shapes, images: 2, split: train, size: 64}
  val: {format: shapes, images: 2, split: val, size: 64}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 2, batch_size: 1, device: cpu, amp: "off"}
"""


@pytest.fixture(scope="module")
def recipe_text(tmp_path_factory):
    """The recipe, and beside it the plugin, which is imported once."""
    path = tmp_path_factory.mktemp("plugin") / "broken.py"
    path.write_text(PLUGIN)
    return RECIPE.replace("broken.py", str(path))


@pytest.fixture
def train(tmp_path, recipe_text):
    def run(head="Base", *overrides):
        (tmp_path / "recipe.yaml").write_text(recipe_text.replace("name: Base", f"name: {head}"))
        recipe = load_recipe(tmp_path / "recipe.yaml", ["data.val=null", *overrides])
        return Trainer(recipe, tmp_path / "run").train()

    return run


HERE = r"model\.heads\.pixels \(\S*recipe\.yaml:5: head {}\)"
BROKEN = {
    "NotADict": r": in training it must return a dict of named scalar losses, got a tensor of shape \(\)",
    "NothingReturned": ": in training it must return a dict of named scalar losses, got a value of type NoneType",
    "NotScalar": r": its loss 'size' is a tensor of shape \(1, 1, 16, 16\) and torch\.float32, expected a scalar",
    "Number": ": its loss 'size' is a value of type float, expected a scalar tensor",
    "Detached": ": its loss 'size' does not depend on its parameters",
    "OneDetached": ": its loss 'other' does not depend on its parameters",
    "WrongLevel": r" uses a feature map 'p9', which does not exist\.\n  Those that do: res2, res3",
    "NoForward": r" has no method forward\(features\), which a training needs",
    "NoLosses": r" has no method losses\(raw, batch\), which a training needs",
}


@pytest.mark.parametrize("head", BROKEN)
def test_a_head_that_breaks_its_contract_is_named_with_its_loss(train, head, tmp_path):
    with pytest.raises(PluginError, match=HERE.format(head) + BROKEN[head]):
        train(head)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("head", "method"), [("NoPredict", r"predict\(raw, batch\)"), ("NoCandidates", r"candidates\(raw\)")]
)
def test_a_head_that_cannot_predict_is_refused_before_a_training_that_evaluates(train, tmp_path, head, method):
    evaluated = "data.val={format: shapes, images: 2, split: val, size: 64}"
    with pytest.raises(PluginError, match=HERE.format(head) + f" has no method {method}"):
        train(head, evaluated)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", ["Base", "ConstantZero", "NoPredict", "NoCandidates"])
def test_what_keeps_it_trains(train, head):
    assert train(head)["loss"] > 0


def test_losses_of_a_frozen_head_may_be_constant(recipe_text, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe_text)
    recipe = load_recipe(tmp_path / "recipe.yaml", ["data.val=null"])
    trainer = Trainer(recipe, tmp_path / "run")
    trainer.model.requires_grad_(False)
    with pytest.raises(RecipeError, match="the loss does not depend on any trained parameter"):
        trainer.train()


def test_a_level_that_is_missing_at_construction_names_those_that_are_there(train):
    with pytest.raises(
        RecipeError,
        match=r"recipe\.yaml:5: head WrongLevelAtStart cannot be built: KeyError: 'p9' \(input_shape has res2, res3\)",
    ):
        train("WrongLevelAtStart")


def test_batch_norm_over_a_single_value_names_the_layer_and_the_remedy(train):
    layer = r": the batch normalization model\.heads\.pixels\.norm \(BatchNorm2d\) sees a single value per channel"
    with pytest.raises(RecipeError, match=HERE.format("OneValuePerChannel") + layer):
        train("OneValuePerChannel")


def test_batch_norm_over_two_images_is_fine(train):
    assert train("OneValuePerChannel", "train.batch_size=2")["loss"] >= 0


def test_any_other_error_carries_the_part_as_a_note(train):
    with pytest.raises(AttributeError, match="sqare") as caught:
        train("Typo")
    assert any("model.heads.pixels (" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("NoShape", r"backbone NoShape has no method output_shape\(\)"),
        ("OddShape", r"backbone OddShape: output_shape\(\) returned \{'a': \(3, 1\)\}, expected \{name: ShapeSpec"),
        ("NoForwardOfABackbone", r"model\.backbone \(.*\) has no method forward\(images\)"),
    ],
)
def test_a_backbone_without_its_methods_is_named(train, backbone, words):
    with pytest.raises(PluginError, match=words):
        train("Base", f"model.backbone={{name: {backbone}}}")


def test_a_neck_without_its_methods_is_named(train):
    with pytest.raises(PluginError, match=r"neck NoShapeOfANeck has no method output_shape\(\)"):
        train("Base", "model.neck={name: NoShapeOfANeck}")


def test_a_part_of_a_head_may_be_frozen(train):
    """As the proposal network in fine-tuning: its losses are constants then."""
    assert train("HalfFrozen")["loss"] > 0


def test_a_loss_of_one_element_is_a_scalar(train):
    assert train("OneElement")["loss"] > 0


def test_any_other_key_error_is_not_called_a_feature_map(train):
    with pytest.raises(KeyError, match="temperature"):
        train("OtherKey")


def test_an_instance_may_have_its_own_output_shape(train):
    assert train("Base", "model.backbone={name: Wrapper}")["loss"] > 0
