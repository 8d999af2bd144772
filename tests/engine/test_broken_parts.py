"""Evaluators, formats, samplers and hooks that break their contract: one message that names the part and the remedy."""

import json

import pytest

from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.errors import PluginError, RecipeError

PLUGIN = """
import numpy as np
import torch
from torch import nn

from vertebra import BACKBONES, EVALUATORS, FORMATS, HEADS, HOOKS, SAMPLERS
from vertebra import Backbone, Evaluator, Format, Hook, ShapeSpec
from vertebra.data import Sampler
from vertebra.models import SemanticHead


@BACKBONES.register()
class Small(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=8, stride=8)

    def output_shape(self):
        return {"s8": ShapeSpec(channels=4, stride=8)}

    def forward(self, images):
        return {"s8": self.conv(images)}


@HEADS.register()
class Pixels(SemanticHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(num_classes)
        self.score = nn.Conv2d(input_shape["s8"].channels, num_classes, 1)

    def forward(self, features):
        return self.score(features["s8"])


class Counter(Evaluator):
    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(outputs)


@EVALUATORS.register()
class OwnConstructor(Counter):
    def __init__(self, dataset):
        self.expected = len(dataset)

    def evaluate(self):
        self.notes.append("counted")
        self.reasons["count/nothing"] = "it is not defined"
        values = {"one": torch.tensor([0.5]), "two": np.float32(0.25), "three": np.ones(1), "nothing": None}
        return {"count/images": self.count / self.expected} | {f"count/{name}": one for name, one in values.items()}


GIVEN = {
    "GivesNone": None,
    "GivesList": [0.5],
    "GivesTensor": {"count/each": torch.ones(3)},
    "GivesText": {"count/images": "all"},
    "GivesNan": {"count/images": float("nan")},
    "GivesOneWord": {"count": 0.5},
}
for name, value in GIVEN.items():
    EVALUATORS.register(type(name, (Counter,), {"evaluate": lambda self, value=value: value}))


@EVALUATORS.register()
class NoProcess(Evaluator):
    def reset(self):
        pass

    def evaluate(self):
        return {}


@FORMATS.register()
class LoadsList(Format):
    def load(self, root=None):
        return [{"file_name": "a.png"}]


@FORMATS.register()
class LoadsNothing(Format):
    def load(self, root=None):
        pass


@FORMATS.register()
class NoLoad(Format):
    pass


@SAMPLERS.register()
class Ends(Sampler):
    def epochs(self, dicts, seed):
        yield np.arange(len(dicts))


@SAMPLERS.register()
class Empty(Sampler):
    def epochs(self, dicts, seed):
        while True:
            yield []


class Logs(Hook):
    def after_step(self, trainer):
        trainer.scalars[getattr(self, "key", "mine")] = self.value


class Keeps(Hook):
    def state_dict(self):
        return self.value


for base, values in {
    Logs: {"Text": "good", "Nothing": None, "Tensor": torch.ones(3), "OneValue": torch.ones(1), "NumPy": np.float32(2)},
    Keeps: {"Nothing": None, "Set": {"seen": {1}}, "Class": {"kind": [Hook]}, "NumPy": {"best": np.float64(0.5)}},
}.items():
    for name, value in values.items():
        HOOKS.register(type(f"{base.__name__}{name}", (base,), {"value": value}))


@HOOKS.register()
class LogsLoss(Logs):
    key, value = "loss", 0.5


@HOOKS.register()
class ReplacesAll(Hook):
    def after_step(self, trainer):
        trainer.scalars = [1.0]


@HEADS.register()
class NoNumClasses(Pixels):
    def __init__(self, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__(input_shape)
"""
RECIPE = """\
plugins: [broken.py]
model:
  backbone: Small
  heads: {pixels: Pixels}
data:
  train: {format: shapes, images: 4, size: 64, labels: [semantic], split: train}
  val: {format: shapes, val_images: 2, size: 64, labels: [semantic], split: val}
  train_transforms: []
  eval_transforms: []
  workers: 0
train:
  steps: 2
  batch_size: 1
  device: cpu
  amp: "off"
evaluate:
  report: false
  evaluators:
    - SemSegEvaluator
"""


@pytest.fixture(scope="module")
def recipe_text(tmp_path_factory):
    """The recipe, and beside it the plugin, which is imported once."""
    path = tmp_path_factory.mktemp("plugin") / "broken.py"
    path.write_text(PLUGIN)
    return RECIPE.replace("broken.py", str(path))


@pytest.fixture
def train(tmp_path, recipe_text):
    def run(old, new, folder="run", evaluates=True):
        assert f"{old}" in recipe_text
        (tmp_path / "recipe.yaml").write_text(new.join(recipe_text.rsplit(old, 1)))
        recipe = load_recipe(tmp_path / "recipe.yaml", [] if evaluates else ["data.val=null"])
        return Trainer(recipe, tmp_path / folder).train()

    return run


EVALUATED = {
    "GivesNone": "evaluate must return a dict of named numbers, got a value of type NoneType",
    "GivesList": "evaluate must return a dict of named numbers, got a value of type list",
    "GivesTensor": r"its metric 'count/each' is a tensor of shape \(3,\) and torch.float32, expected a number, or None",
    "GivesText": "its metric 'count/images' is a value of type str, expected a number, or None",
    "GivesNan": r"its metric 'count/images' is nan\.\n  Where it is undefined, return None",
    "GivesOneWord": "evaluate returned a metric called 'count', expected task/name",
}


@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluator_that_gives_something_else_is_named_and_costs_no_training(train, name):
    where = rf"the evaluation at step 2 failed: \S*recipe\.yaml:19: evaluator {name}: "
    with pytest.raises(PluginError, match=f"(?s){where}{EVALUATED[name]}.*The training is not lost"):
        train("SemSegEvaluator", name)


def test_an_evaluator_without_a_method_is_refused_before_the_training(train, tmp_path):
    missing = r"recipe\.yaml:19: evaluator NoProcess has no method process\(inputs, outputs\)"
    with pytest.raises(PluginError, match=missing):
        train("SemSegEvaluator", "NoProcess")
    assert not (tmp_path / "run").exists()


def test_an_evaluator_with_its_own_constructor_has_what_the_report_reads(train, tmp_path):
    found = train("SemSegEvaluator", "OwnConstructor")
    written = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    numbers = {"images": 1.0, "one": 0.5, "two": 0.25, "three": 1.0, "nothing": None}
    assert {name: found[f"count/{name}"] for name in numbers} == numbers
    assert written["reasons"] == {"count/nothing": "it is not defined"}
    assert "counted" in written["notes"]


LOADED = {
    "LoadsList": r": load\(root\) must return a vertebra\.data\.Dataset, got a value of type list\.\n  Return Dataset",
    "LoadsNothing": r": load\(root\) must return a vertebra\.data\.Dataset, got a value of type NoneType",
    "NoLoad": r" has no method load\(root\)",
}


@pytest.mark.parametrize("name", LOADED)
def test_a_format_that_loads_something_else_is_named(train, name):
    with pytest.raises(PluginError, match=rf"recipe\.yaml:6: format {name}{LOADED[name]}"):
        train("{format: shapes, images: 4, size: 64, labels: [semantic], split: train}", f"{{format: {name}}}")


@pytest.mark.parametrize(("name", "words"), [("Ends", "epochs ended after 1"), ("Empty", "epoch 1 has no indices")])
def test_a_sampler_that_would_end_or_stall_a_training_is_named(train, name, words):
    with pytest.raises(PluginError, match=rf"recipe\.yaml:11: sampler {name}: {words}"):
        train("workers: 0\ntrain:\n  steps: 2", f"workers: 0\n  sampler: {name}\ntrain:\n  steps: 5")


def test_a_head_without_a_parameter_for_what_its_base_needs_is_told_to_have_one(train):
    remedy = "Give the constructor of NoNumClasses a parameter num_classes, which the framework sets"
    with pytest.raises(RecipeError, match=rf"(?s)recipe\.yaml:4: head NoNumClasses cannot be built: .*{remedy}"):
        train("Pixels", "NoNumClasses")


LOGGED = {
    "LogsText": r"\['mine'\] is a value of type str, expected a number or a tensor of one value",
    "LogsNothing": r"\['mine'\] is a value of type NoneType, expected a number or a tensor of one value",
    "LogsTensor": r"\['mine'\] is a tensor of shape \(3,\) and torch\.float32, expected a number",
    "LogsLoss": " has the name 'loss', expected a text other than step and loss",
    "ReplacesAll": " is a value of type list, expected a dict",
}


@pytest.mark.parametrize("name", LOGGED)
def test_a_hook_that_logs_anything_but_numbers_is_named_with_the_key(train, name):
    with pytest.raises(PluginError, match=rf"recipe\.yaml:13: hook {name}: trainer\.scalars{LOGGED[name]}"):
        train("steps: 2", f"steps: 2\n  hooks: [{name}]", evaluates=False)


def test_numbers_of_torch_and_numpy_are_logged(train):
    assert train("steps: 2", "steps: 2\n  hooks: [LogsOneValue]", evaluates=False)
    assert train("steps: 2", "steps: 2\n  hooks: [LogsNumPy]", folder="second", evaluates=False)


KEPT = {
    "KeepsNothing": r"state_dict\(\) returned None, expected what load_state_dict needs",
    "KeepsSet": r"state_dict\(\)\['seen'\] is a set; a state_dict holds numbers, strings",
    "KeepsClass": r"state_dict\(\)\['kind'\]\[0\] is a type; a state_dict holds",
    "KeepsNumPy": r"state_dict\(\)\['best'\] is a numpy\.float64; a state_dict holds",
}


@pytest.mark.parametrize("name", KEPT)
def test_a_hook_whose_state_no_checkpoint_can_hold_is_named_before_the_first_step(train, tmp_path, name):
    with pytest.raises(PluginError, match=rf"recipe\.yaml:13: hook {name}: {KEPT[name]}"):
        train("steps: 2", f"steps: 2\n  hooks: [{name}]", evaluates=False)
    assert not (tmp_path / "run" / "metrics.jsonl").read_text() and not (tmp_path / "run" / "checkpoints").exists()
