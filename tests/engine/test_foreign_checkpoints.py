"""A checkpoint with a value of another type or shape inside: the run resumes from the one before, bit for bit."""

import copy
import shutil

import pytest
import torch
from stub_parts import stub_parts

from vertebra.engine import Trainer
from vertebra.engine.checkpoint import read_checkpoint
from vertebra.engine.hook import Hook
from vertebra.engine.hooks.ema import EMA
from vertebra.errors import CheckpointError

STEPS = 12


def train(folder, resume=False, hooks=None):
    trainer = Trainer(output_dir=folder, resume=resume, parts=stub_parts(STEPS), hooks=hooks or [EMA()])
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with checkpoints of steps 10 and 12."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder)
    return folder


def changes() -> dict[str, object]:
    """By name, a function that spoils the content of a checkpoint."""

    def put(*keys):
        def change(content, value=keys[-1]):
            for key in keys[:-2]:
                content = content[key]
            content[keys[-2]] = value

        return change

    first = lambda content: next(iter(content["optimizer"]["state"].values()))  # noqa: E731
    found = {
        f"{key} is {kind}": put(key, copy.deepcopy(value))
        for key in ("model", "optimizer", "step", "rng", "hooks", "scaler", "schedule", "recipe", "plugins", "format")
        for kind, value in (("text", "x"), ("a number", 1.5), ("none", None), ("a list", ["x"]), ("a dict", {1: "x"}))
        if (key, kind) not in [("recipe", "text"), *((key, "a dict") for key in ("scaler", "schedule", "plugins"))]
    }
    found |= {
        "step is true": put("step", True),
        "step is negative": put("step", -3),
        "a weight is text": put("model", "conv.weight", "x"),
        "a weight is of integers": put("model", "conv.weight", torch.zeros((8, 3, 3, 3), dtype=torch.int64)),
        "a weight is sparse": lambda content: content["model"].update(
            {"score.weight": content["model"]["score.weight"].to_sparse()}
        ),
        "a weight is missing": lambda content: content["model"].pop("score.weight"),
        "the step is another one than that of the name": put("step", 11),
        "the step is huge": put("step", 10**30),
        "the recipe is not YAML": put("recipe", "a: [\n"),
        "the recipe holds a tag": put("recipe", "a: !!python/name:os.system\n"),
        "class names are a number": put("metadata", {"a": {"thing_classes": 5}}),
        "facts are a number": put("metadata", {"a": 5}),
        "the optimizer's type is a number": put("optimizer", "type", 5),
        "names of parameters are short": lambda content: content["optimizer"]["names"].pop(),
        "a momentum is complex": lambda content: first(content).update(
            momentum_buffer=first(content)["momentum_buffer"].to(torch.complex64)
        ),
        "sums are numbers of text": put("hooks", "Metrics", "sums", {"loss": "x"}),
        "a hook is text": put("hooks", "EMA", "x"),
        "a hook is empty": put("hooks", "EMA", {}),
        "an average is text": put("hooks", "EMA", "average", "x"),
        "an average's weight is text": put("hooks", "EMA", "average", "conv.weight", "x"),
        "an average's weight has another shape": put("hooks", "EMA", "average", "conv.weight", torch.zeros(3)),
        "an average's count is text": put("hooks", "EMA", "updates", "many"),
        "sums are text": put("hooks", "Metrics", "sums", "x"),
        "a random state is text": put("rng", 0, "x"),
        "a random state has lost a part": lambda content: content["rng"][0].pop("numpy"),
        "torch's random state is short": put("rng", 0, "torch", torch.zeros(5, dtype=torch.uint8)),
        "torch's random state is floats": put("rng", 0, "torch", torch.zeros(5056)),
        "Python's random state is short": put("rng", 0, "python", [3, [1, 2], None]),
        "names of parameters are a number": put("optimizer", "names", 5),
        "the optimizer's state is a list": put("optimizer", "state", []),
        "the optimizer's state is of text": lambda content: content["optimizer"]["state"].update({0: "x"}),
        "a momentum is text": lambda content: first(content).update(momentum_buffer="x"),
        "a momentum has another shape": lambda content: first(content).update(momentum_buffer=torch.zeros(2)),
    }
    return found


@pytest.mark.parametrize("name", changes())
def test_a_foreign_value_gives_way_to_the_checkpoint_before(finished, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    last = sorted((folder / "checkpoints").glob("*.pth"))[-1]
    content = read_checkpoint(last)
    changes()[name](content)
    torch.save(content, last)
    trainer = Trainer(output_dir=folder, resume=True, parts=stub_parts(STEPS), hooks=[EMA()])
    assert trainer.step == 10
    trainer.train()
    assert "cannot resume from the newest checkpoint, trying the one before" in (folder / "log.txt").read_text()
    whole, resumed = (torch.load(one / "final.pth", weights_only=True)["model"] for one in (finished, folder))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


class Odd(Hook):
    """Its state changes its type and its shape, and is not a dict."""

    def __init__(self) -> None:
        self.history, self.best = torch.zeros(0), 0.0

    def after_step(self, trainer) -> None:
        self.history = torch.cat((self.history, torch.ones(1)))
        self.best = torch.tensor(1.0)

    def state_dict(self):
        return [self.history, self.best]

    def load_state_dict(self, state) -> None:
        self.history, self.best = state


def test_the_state_of_a_hook_may_be_anything(tmp_path):
    train(tmp_path / "run", hooks=[Odd()])
    hook = Odd()
    trainer = Trainer(output_dir=tmp_path / "run", resume=True, parts=stub_parts(STEPS), hooks=[hook])
    assert trainer.step == STEPS and len(hook.history) == STEPS


class Moments(torch.optim.Optimizer):
    """Keeps one number per parameter under a name that Adam uses for a tensor."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for parameter in (p for group in self.param_groups for p in group["params"]):
            self.state[parameter]["exp_avg_sq"] = parameter.grad.square().mean()
            parameter -= 0.01 * parameter.grad


def test_an_optimizer_of_ones_own_may_keep_what_it_likes(tmp_path):
    def parts():
        made = stub_parts(STEPS)
        made.optimizer, made.schedule = Moments(made.model.parameters()), None
        return made

    Trainer(output_dir=tmp_path / "run", parts=parts()).train()
    assert Trainer(output_dir=tmp_path / "run", resume=True, parts=parts()).step == STEPS


def test_a_run_may_be_resumed_with_fewer_steps_than_it_has(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    trainer = Trainer(output_dir=folder, resume=True, parts=stub_parts(7), hooks=[EMA()])
    trainer.train()
    assert trainer.step == STEPS


def test_with_no_older_one_it_says_what_is_wrong_in_each(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in (folder / "checkpoints").glob("*.pth"):
        content = read_checkpoint(path)
        content["rng"] = ["x"]
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints can be read") as caught:
        Trainer(output_dir=folder, resume=True, parts=stub_parts(STEPS), hooks=[EMA()])
    assert str(caught.value).count("its entry rng cannot be restored: TypeError") == 2


def test_a_checkpoint_that_does_not_fit_the_recipe_is_no_reason_to_take_an_older_one(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    parts = stub_parts(STEPS)
    parts.model.score = torch.nn.Linear(8, 2)
    with pytest.raises(CheckpointError, match=r"step_0000012\.pth: does not fit this recipe's model"):
        Trainer(output_dir=folder, resume=True, parts=parts, hooks=[EMA()])
