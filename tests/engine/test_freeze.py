"""`train.freeze`: what is frozen does not change, until it is trained; resuming and several processes."""

import sys
from pathlib import Path

import pytest
import torch
from two_processes import start_two

from vertebra import Hook, RecipeError, Trainer, load_recipe
from vertebra.plugins.local_files import ANNOUNCED

PLUGIN = """
import torch
from torch import nn
from torch.nn import functional as F
from vertebra import MODELS, BaseModel
from vertebra.models.semantic import semantic_predictions

@MODELS.register()
class Pixels(BaseModel):
    labels = "stuff"
    task_outputs = ("sem_seg",)
    def __init__(self, num_classes: int, norm: bool = True, held: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.ReLU())
        self.first[0].weight.requires_grad_(not held)
        self.second = nn.Conv2d(8, num_classes, 1)
    def network(self, images):
        return self.second(self.first(images).relu())
    def losses(self, raw, batch):
        return {"loss_pixels": F.cross_entropy(raw, batch.sem_seg, ignore_index=255, reduction="none").mean()}
    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)

@MODELS.register()
class Owned(Pixels):
    def training_step(self, batch, step):
        losses = self.losses(self.compute(batch), batch)
        step.minimize("second", losses["loss_pixels"], retain_graph=True)
        step.minimize("first", self.losses(self.compute(batch), batch)["loss_pixels"])
        return losses
"""
RECIPE = """
plugins: [parts.py]
model: {name: Pixels}
data:
  train: {format: shapes, images: 8, split: train, size: 64, labels: [semantic]}
  val: {format: shapes, images: 8, val_images: 2, split: val, size: 64, labels: [semantic]}
  train_transforms: []
  eval_transforms: []
  workers: 0
train:
  steps: 6
  batch_size: 4
  optimizer: {name: AdamW, lr: 0.01, weight_decay: 0.1}
  freeze: [{match: first, until: 4}]
  checkpoint_every: 2
  evaluate_every: 2
  log_every: 1
  device: cpu
  amp: "off"
evaluate: {evaluators: [SemSegEvaluator], report: false}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


class Kept(Hook):
    """The state dict before each step and at the end."""

    def __init__(self):
        self.states = []

    def before_step(self, trainer):
        self.states.append({name: value.clone() for name, value in trainer.model.state_dict().items()})

    def after_train(self, trainer):
        self.before_step(trainer)


class Stopped(Hook):
    def __init__(self, at):
        self.at = at

    def before_step(self, trainer):
        if trainer.step == self.at:
            raise RuntimeError("stopped")


def changed(before, after, part):
    return {name for name in before if name.startswith(part) and not torch.equal(before[name], after[name])}


def weights(run):
    return torch.load(f"{run}/final.pth", weights_only=True)["model"]


def test_frozen_parameters_and_statistics_stay_until_their_step():
    kept = Kept()
    Trainer(load_recipe("r.yaml"), "run", hooks=[kept]).train()
    start, at_4, end = kept.states[0], kept.states[4], kept.states[6]
    assert changed(start, at_4, "first") == set()  # an evaluation at step 2 changes nothing of it
    assert changed(start, at_4, "second") == {"second.weight", "second.bias"}
    assert changed(at_4, end, "first") == {name for name in end if name.startswith("first")}
    assert "train.freeze: 0 parameters are never trained, 4 from a later step on" in Path("run/log.txt").read_text()


def test_what_is_never_trained_is_in_no_optimizer():
    kept = Kept()
    trainer = Trainer(load_recipe("r.yaml", ["train.freeze=[{match: [first.0.*, first.1.bias]}]"]), "run", hooks=[kept])
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == 3
    trainer.train()
    # the norm's weight is trained, so its statistics go on
    assert changed(kept.states[0], kept.states[-1], "first") == {
        *("first.1.weight", "first.1.running_mean", "first.1.running_var", "first.1.num_batches_tracked")
    }


def test_what_the_model_itself_has_frozen_stays_frozen():
    kept = Kept()
    trainer = Trainer(load_recipe("r.yaml", ["model.held=true"]), "run", hooks=[kept])
    trainer.train()
    assert not trainer.model.first[0].weight.requires_grad and trainer.model.first[0].bias.requires_grad
    assert changed(kept.states[0], kept.states[-1], "first.0") == {"first.0.bias"}


@pytest.mark.parametrize("at", [3, 5])
def test_resumed_runs_end_with_the_same_bits(at):
    Trainer(load_recipe("r.yaml"), "one").train()
    with pytest.raises(RuntimeError, match="stopped"):
        Trainer(load_recipe("r.yaml"), "two", hooks=[Stopped(at)]).train()
    Trainer(load_recipe("two/recipe.yaml"), "two", resume=True).train()
    one, two = weights("one"), weights("two")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("model", ["Pixels", "Owned"])
def test_two_processes_train_as_one(folder, model):
    changes = [f"model={{name: {model}, norm: false}}", "train.freeze=[{match: first, until: 3}]"]
    sgd = "{name: SGD, lr: 0.05}"
    changes.append(
        f"train.optimizer={sgd}" if model == "Pixels" else f"train.optimizers={{first: {sgd}, second: {sgd}}}"
    )
    kept = Kept()
    Trainer(load_recipe("r.yaml", changes), "one", hooks=[kept]).train()
    assert changed(kept.states[0], kept.states[3], "first") == set() != changed(kept.states[3], kept.states[4], "first")
    command = [sys.executable, "-m", "vertebra", "train", "r.yaml", *changes, "--output", "two"]
    for process in start_two(command, folder, **{ANNOUNCED: ""}):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    one, two = weights("one"), weights("two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("[{match: frist}]", r"r\.yaml: train\.freeze\.0\.match: no parameter is called 'frist'\.\n  Nearest: first"),
        ("[{match: '*'}]", "train.freeze leaves nothing to train in the first step"),
        ("[{match: first}, {match: second, until: 2}]", "train.freeze leaves nothing to train in the first step"),
        ("[{match: first, until: 0}]", "until is 0, expected at least 1 step"),
        ("[{match: first, until: soon}]", 'until is "soon", expected a number of steps, or text like "1 epoch"'),
        ("[{until: 2}]", "train.freeze.0.match is missing"),
    ],
)
def test_mistakes_are_named(freeze, words):
    with pytest.raises(RecipeError, match=words):
        Trainer(load_recipe("r.yaml", [f"train.freeze={freeze}"]))
