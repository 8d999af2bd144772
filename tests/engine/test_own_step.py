"""Models that own their training step, with several optimizers: hooks, resuming, precision and processes."""

import json
import sys

import pytest
import torch
from two_processes import start_two

from vertebra import Hook, PluginError, RecipeError, Trainer, load_recipe
from vertebra.plugins.local_files import ANNOUNCED

PLUGIN = '''
import torch
from torch import nn
from torch.nn import functional as F
from vertebra import MODELS, BaseModel
from vertebra.models.semantic import semantic_predictions

def loss_of(raw, batch):  # a mean over all pixels, so that it does not depend on how many a process ignores
    return F.cross_entropy(raw, batch.sem_seg, ignore_index=255, reduction="none").mean()

class Pixels(BaseModel):
    labels = "stuff"
    task_outputs = ("sem_seg",)
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.generator = nn.Conv2d(3, num_classes, 3, padding=1)
        self.discriminator = nn.Conv2d(num_classes, 1, 1)
    def network(self, images):
        return self.generator(images)
    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)

@MODELS.register()
class Adversarial(Pixels):
    """Labels each pixel, and a critic says whether the labels look right."""
    def training_step(self, batch, step):
        raw = self.compute(batch)
        fooled = F.softplus(-self.discriminator(raw.softmax(1))).mean()
        pixels = loss_of(raw, batch)
        step.minimize("generator", pixels + 0.1 * fooled)
        known = F.one_hot(batch.sem_seg.clamp(max=raw.shape[1] - 1), raw.shape[1]).movedim(-1, 1).float()
        told = F.softplus(-self.discriminator(known)).mean() + F.softplus(
            self.discriminator(raw.detach().softmax(1))).mean()
        step.minimize("discriminator", told)
        return {"loss_pixels": pixels, "loss_critic": told}

@MODELS.register()
class Usual(Pixels):
    """The loss of a usual step."""
    def losses(self, raw, batch):
        return {"loss_pixels": loss_of(raw, batch) + 0 * sum(one.sum() for one in self.discriminator.parameters())}

@MODELS.register()
class Owned(Usual):
    """The same, in a step of its own."""
    def training_step(self, batch, step):
        losses = self.losses(self.compute(batch), batch)
        step.minimize("optimizer", losses["loss_pixels"])
        return losses

@MODELS.register()
class CriticFirst(Pixels):
    """Minimizes the critic's loss in some steps only, and then uses its new weights."""
    fault = None
    def training_step(self, batch, step):
        raw = self.compute(batch)
        told = self.discriminator(raw).square().mean()
        logged = {"loss_critic": told}
        if step.number % 3 == 0:
            step.minimize("discriminator", self.discriminator(raw.detach()).square().mean())
            logged["steps"] = torch.tensor(float(step.total))
            weight, bias = (one.to(raw.dtype) for one in (self.discriminator.weight, self.discriminator.bias))
            assert torch.equal(self.discriminator(raw), F.conv2d(raw, weight, bias))
        if self.fault == "stale":
            step.minimize("generator", told)
        step.minimize("generator", self.discriminator(raw).square().mean())
        if self.fault == "twice":
            step.minimize("generator", raw.square().mean())
        if self.fault == "detached":
            step.minimize("generator", raw.square().mean().detach())
        if self.fault == "unlike" and torch.distributed.get_rank() == 1:
            step.minimize("discriminator", self.discriminator(raw.detach()).square().mean())
        return logged

for fault in ("stale", "twice", "detached", "unlike"):
    MODELS.register(type(fault.title(), (CriticFirst,), {"fault": fault}))

@MODELS.register()
class Idle(Pixels):
    def training_step(self, batch, step):
        return {}

@MODELS.register()
class Astray(Pixels):
    def training_step(self, batch, step):
        step.minimize("genrator", self.compute(batch).mean())
'''
RECIPE = """
plugins: [parts.py]
model: {name: Adversarial}
data:
  train: {format: shapes, images: 8, split: train, size: 64, labels: [semantic]}
  val: {format: shapes, images: 8, val_images: 2, split: val, size: 64, labels: [semantic]}
  train_transforms: []
  eval_transforms: []
  workers: 0
train:
  steps: 6
  batch_size: 4
  optimizers:
    generator: {name: AdamW, lr: 0.01}
    discriminator: {name: SGD, lr: 0.02}
  clip_gradients: 0.5
  checkpoint_every: 3
  log_every: 1
  device: cpu
  amp: "off"
evaluate: {evaluators: [SemSegEvaluator], report: false}
"""
ONE = {"train.optimizer": {"name": "SGD", "lr": 0.05}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


class Stopped(Hook):
    def before_step(self, trainer):
        if trainer.step == 4:
            raise RuntimeError("stopped")


class Watched(Hook):
    """What hooks see after each backward pass: the optimizer's class, the losses, whose gradients there are."""

    def __init__(self):
        self.seen = []

    def after_backward(self, trainer):
        grads = {name.split(".")[0] for name, one in trainer.model.named_parameters() if one.grad is not None}
        self.seen.append((type(trainer.optimizer).__name__, list(trainer.losses), grads))


def weights(run):
    return torch.load(f"{run}/final.pth", weights_only=True)["model"]


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def records(run):
    return [json.loads(line) for line in open(f"{run}/metrics.jsonl") if "loss" in json.loads(line)]


def test_two_optimizers_train_their_own_modules_and_resume_to_the_same_bits(folder):
    watched = Watched()
    results = Trainer(load_recipe("r.yaml"), "one", hooks=[watched]).train()
    assert results["loss"] > 0 and "sem_seg/mIoU" in results
    assert watched.seen[0] == ("AdamW", ["generator/loss"], {"generator"})
    assert (
        watched.seen[1] == ("SGD", ["discriminator/loss"], {"generator", "discriminator"}) and len(watched.seen) == 12
    )
    lines = records("one")
    assert {"loss/loss_pixels", "loss/loss_critic", "grad_norm/generator", "grad_norm/discriminator"} <= lines[0].keys()
    assert lines[-1]["loss/loss_pixels"] < lines[0]["loss/loss_pixels"]
    with pytest.raises(RuntimeError, match="stopped"):
        Trainer(load_recipe("r.yaml"), "two", hooks=[Stopped()]).train()
    Trainer(load_recipe("two/recipe.yaml"), "two", resume=True).train()
    assert equal(weights("one"), weights("two"))
    assert load_recipe("one/recipe.yaml").train == load_recipe("r.yaml").train


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_of_ones_own_is_the_usual_one_to_the_bit(folder, amp):
    for name in ("Usual", "Owned"):
        Trainer(load_recipe("r.yaml", [f"model.name={name}", ONE, f"train.amp={amp}"]), name).train()
    assert equal(weights("Usual"), weights("Owned"))
    assert [one["loss"] for one in records("Usual")] == [one["loss"] for one in records("Owned")]


@pytest.mark.parametrize("name", ["Owned", "Adversarial"])
def test_two_processes_train_as_one(folder, name):
    changes = [f"model.name={name}", "train.optimizer={name: SGD, lr: 0.05}"]
    if name == "Adversarial":  # AdamW would make much of what differs in rounding
        changes[1:] = ["train.optimizers.generator={name: SGD, lr: 0.05}"]
    Trainer(load_recipe("r.yaml", changes), "one").train()
    command = [sys.executable, "-m", "vertebra", "train", "r.yaml", *changes, "--output", "two"]
    for process in start_two(command, folder, **{ANNOUNCED: ""}):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    one, two = weights("one"), weights("two")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_processes_that_minimize_other_losses_do_not_wait_for_ever(folder):
    command = [sys.executable, "-m", "vertebra", "train", "r.yaml", "model.name=Unlike", "--output", "two"]
    processes = start_two(command, folder, **{ANNOUNCED: ""})
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    for number, call in enumerate(("missing", "'discriminator'")):
        assert f"call 3 of step.minimize in step 1 is {call} in process {number}" in errors[number]


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_loss_of_some_steps_and_new_weights_within_a_step(folder, amp):
    Trainer(load_recipe("r.yaml", ["model.name=CriticFirst", f"train.amp={amp}", "train.log_every=6"]), "run").train()
    assert records("run")[-1]["loss/steps"] == 6  # a mean over the two steps that have it


def test_fp16_scales_each_loss_and_skips_what_overflows(folder):
    trainer = Trainer(load_recipe("r.yaml"), "one")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    trainer.train()
    plain = Trainer(load_recipe("r.yaml"), "two")
    plain.train()
    for key, value in plain.model.state_dict().items():  # clipped after unscaling, so the scale changes nothing
        torch.testing.assert_close(trainer.model.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert trainer.scaler.get_scale() == 2.0**8


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["train.optimizers.discriminator=null"], RecipeError, r"2 trainable parameters are in none"),
        ([{"train.optimizers.genrator": "SGD"}], RecipeError, r"no module 'genrator'.*Nearest: generator"),
        (["train.optimizers.b={name: SGD, modules: [generator]}"], RecipeError, r"generator\.weight is trained by"),
        (["train.optimizers.generator.module=[x]"], RecipeError, r"AdamW has no such argument.*Nearest: modules"),
        (["model.name=Usual"], RecipeError, r"Usual has no method training_step\(batch, step\)"),
        (["model.name=Idle"], PluginError, r"r.yaml:3: model Idle: training_step has not called step\.minimize"),
        (["model.name=Astray"], PluginError, r"no optimizer is named 'genrator'.*Nearest: generator"),
        (["model.name=Owned"], PluginError, r"no optimizer is named 'optimizer'"),
        (["model.name=Stale"], PluginError, r"'generator', \.\.\.\): the loss was computed with weights that"),
        (["model.name=Twice"], PluginError, r"has freed the outputs.*Give that call retain_graph=True"),
        (["model.name=Detached"], PluginError, r"the loss of 'generator' is of shape \(\); expected a scalar"),
    ],
)  # fmt: skip
def test_mistakes_say_how_to_go_on(folder, overrides, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        Trainer(load_recipe("r.yaml", overrides), "run").train()


def test_one_of_optimizer_and_optimizers(folder):
    both = RECIPE.replace("  optimizers:", "  optimizer: {name: SGD}\n  optimizers:")
    (folder / "both.yaml").write_text(both)
    with pytest.raises(RecipeError, match=r"train\.optimizers stands beside train\.optimizer"):
        load_recipe("both.yaml")
    assert load_recipe("r.yaml", [ONE]).train.optimizers == {}  # the later one counts


def test_a_checkpoint_of_other_optimizers_is_refused(folder):
    Trainer(load_recipe("r.yaml"), "run").train()
    changed = load_recipe("r.yaml", [ONE, "train.steps=8", "model.name=Owned"])
    with pytest.raises(Exception, match=r"was written with other optimizers: discriminator, generator; the recipe has"):
        Trainer(changed, "run", resume=True)
