"""The Trainer with a stub model: the loop, the run folder, resuming, stopping."""

import json
import logging
import multiprocessing
import os
import signal

import pytest
import torch
from stub_parts import StubModel, stub_batches, stub_parts
from torch import nn

from vertebra.engine import Hook, Trainer
from vertebra.engine.checkpoint import read_checkpoint
from vertebra.engine.hooks.ema import EMA
from vertebra.engine.optimizers import SGD, AdamW
from vertebra.engine.parts import Parts, Plan
from vertebra.engine.run_folder import RunFolder
from vertebra.errors import CheckpointError, DataError, RecipeError, TrainingDiverged


class Act(Hook):
    """Calls a function at an event."""

    def __init__(self, **actions) -> None:
        for event, action in actions.items():
            setattr(self, event, action)


def at_step(step, action):
    return lambda trainer: action(trainer) if trainer.step == step else None


def raising(error):
    def act(trainer):
        raise error

    return act


def train(folder, *, resume=False, hooks=(), **plan):
    trainer = Trainer(parts=stub_parts(**plan), output_dir=folder, resume=resume, hooks=hooks)
    return trainer, trainer.train()


def test_the_loop_is_gradient_descent():
    """Against the same four steps written out by hand, bit for bit."""
    parts = stub_parts(4, dropout=0.0, evaluate=False)
    Trainer(parts=parts).train()
    torch.manual_seed(0)
    model = StubModel(0.0).to(memory_format=torch.channels_last)
    optimizer = SGD(lr=0.05).build(model)
    for step, batch in zip(range(4), stub_batches(0), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * parts.schedule.factor(step, 4)
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name


def test_data_that_cannot_be_evaluated_loses_no_training(tmp_path):
    parts = stub_parts(evaluate_every=None)
    parts.evaluate = lambda model, folder, last: raising(DataError("val/7.jpg: is empty"))(None)
    with pytest.raises(DataError, match=r"step 12 failed: val/7\.jpg: is empty\n.*not lost.*--resume"):
        Trainer(parts=parts, output_dir=tmp_path / "run").train()
    trainer, metrics = train(tmp_path / "run", resume=True, evaluate_every=None)
    assert trainer.step == 12
    assert metrics["stub/weight"] > 0
    assert torch.equal(trainer.model.conv.weight, train(tmp_path / "whole", evaluate_every=None)[0].model.conv.weight)


def test_a_run_folder_holds_what_it_should(tmp_path):
    trainer, metrics = train(tmp_path / "run")
    names = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    assert names == {
        "recipe.yaml",
        "log.txt",
        "metrics.jsonl",
        "final.pth",
        "checkpoints",
        "checkpoints/last",
        "checkpoints/step_0000010.pth",
        "checkpoints/step_0000012.pth",
    }
    assert set(metrics) == {"loss", "stub/weight"}
    assert {"loss/stub/error", "lr", "images_per_second", "data_seconds"} | set(metrics) <= set(trainer.metrics)
    final = torch.load(tmp_path / "run/final.pth", weights_only=True)
    assert set(final) == {"model", "step", "recipe", "plugins", "vertebra", "format", "metadata"}
    assert torch.equal(final["model"]["conv.weight"], trainer.model.conv.weight)
    log = (tmp_path / "run/log.txt").read_text()
    for words in ("torch 2.", "249 trained parameters", "step 3/12", "evaluation at step 5", "seed 0"):
        assert words in log


def test_metrics_are_averages_over_the_interval(tmp_path):
    seen = []
    train(tmp_path, hooks=[Act(after_step=lambda t: seen.append(t.loss.item()))], evaluate=False)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6, 9, 12]
    means = [sum(seen[i : i + 3]) / 3 for i in range(0, 12, 3)]
    assert [record["loss"] for record in records] == pytest.approx(means, rel=1e-6)


def test_plain_lines_where_the_output_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's: who set up logging gets no second output
    train(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "step " in line and "loss" in line]
    assert len(lines) == 4
    for word in ("img/s", "data", "eta", "lr", "stub/error"):
        assert word in lines[0]


def test_a_progress_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    train(tmp_path)
    shown = capsys.readouterr().out
    assert "12/12" in shown
    assert "img/s" in shown
    assert "step 3/12" not in shown  # the plain lines are in log.txt alone
    assert "step 3/12" in (tmp_path / "log.txt").read_text()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(tmp_path)
    with pytest.raises(RecipeError, match=r"already holds a run.*\n.*--resume"):
        Trainer(parts=stub_parts(), output_dir=tmp_path)


def test_nothing_to_resume_starts_at_the_beginning(tmp_path):
    trainer, _ = train(tmp_path / "new", resume=True)
    assert trainer.step == 12
    assert "nothing to resume" in (tmp_path / "new/log.txt").read_text()


def test_a_longer_training_goes_on_from_the_end_of_a_shorter_one(tmp_path):
    train(tmp_path, steps=6)
    trainer, _ = train(tmp_path, steps=12, resume=True)
    assert trainer.step == 12
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 5, 6, 6, 9, 10, 12, 12]


def test_a_changed_recipe_is_told_and_kept(tmp_path):
    train(tmp_path, steps=5)
    parts = stub_parts(6)
    parts.recipe_text = "model: {stub: false}\ntrain: {steps: 6}\n"
    Trainer(parts=parts, output_dir=tmp_path, resume=True).train()
    log = (tmp_path / "log.txt").read_text()
    assert "model.stub: True -> False" in log
    assert "train.steps: '(absent)' -> 6" in log
    assert (tmp_path / "recipe.yaml").read_text() == parts.recipe_text
    assert (tmp_path / "recipe.until_step_5.yaml").read_text() == "model: {stub: true}\n"


def test_a_changed_rate_takes_effect(tmp_path):
    train(tmp_path, steps=5)
    parts = stub_parts(6)
    parts.optimizer = SGD(lr=0.5).build(parts.model)
    parts.schedule = None
    Trainer(parts=parts, output_dir=tmp_path, resume=True).train()
    assert {group["lr"] for group in parts.optimizer.param_groups} == {0.5}


def test_regrouped_parameters_keep_their_own_momentum(tmp_path):
    trainer, _ = train(tmp_path, steps=5)
    momentum = {name: trainer.optimizer.state[p]["momentum_buffer"] for name, p in trainer.model.named_parameters()}
    parts = stub_parts(5)
    parts.optimizer = SGD(lr=0.05, bias_lr_factor=2.0).build(parts.model)
    Trainer(parts=parts, output_dir=tmp_path, resume=True)
    for name, parameter in parts.model.named_parameters():
        assert torch.equal(parts.optimizer.state[parameter]["momentum_buffer"], momentum[name]), name


def test_another_model_cannot_resume(tmp_path):
    train(tmp_path, steps=5)
    parts = stub_parts(6)
    parts.model.score = nn.Linear(8, 3)
    with pytest.raises(CheckpointError, match=r"score.weight: \(1, 8\) in the checkpoint, \(3, 8\) in this model"):
        Trainer(parts=parts, output_dir=tmp_path, resume=True)


def test_another_optimizer_cannot_resume(tmp_path):
    train(tmp_path, steps=5)
    parts = stub_parts(6)
    parts.optimizer = AdamW().build(parts.model)
    with pytest.raises(CheckpointError, match="written with the optimizer SGD, the recipe says AdamW"):
        Trainer(parts=parts, output_dir=tmp_path, resume=True)


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(tmp_path):
    train(tmp_path)
    reference = read_checkpoint(tmp_path / "checkpoints/step_0000012.pth")["model"]
    (tmp_path / "checkpoints/step_0000012.pth").write_bytes(b"PK\x03\x04 half a file")
    trainer, _ = train(tmp_path, resume=True)
    log = (tmp_path / "log.txt").read_text()
    assert "step_0000012.pth: damaged" in log
    assert "step_0000010.pth at step 10 of 12" in log
    assert all(torch.equal(reference[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_before_it_reaches_the_weights(tmp_path, bad):
    parts = stub_parts()
    before = {}

    def spoil(trainer):
        before.update({name: value.clone() for name, value in trainer.model.named_parameters()})
        forward = trainer.model.forward
        trainer.model.forward = lambda batch: {**forward(batch), "stub/spoilt": torch.tensor(bad, requires_grad=True)}

    trainer = Trainer(parts=parts, output_dir=tmp_path, hooks=[Act(before_step=at_step(6, spoil))])
    with pytest.raises(TrainingDiverged, match="step 7: not finite: stub/spoilt"):
        trainer.train()
    assert all(torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.suffix] == ["step_0000005.pth"]


def test_bad_weights_are_not_saved(tmp_path):
    def spoil(trainer):
        with torch.no_grad():
            trainer.model.conv.weight[0, 0, 0, 0] = float("nan")

    trainer = Trainer(parts=stub_parts(), output_dir=tmp_path, hooks=[Act(after_step=at_step(10, spoil))])
    with pytest.raises(TrainingDiverged, match=r"step 10: some weights or statistics are not finite: conv\.weight"):
        trainer.train()
    assert read_checkpoint(tmp_path / "checkpoints/step_0000005.pth")["step"] == 5
    assert not (tmp_path / "checkpoints/step_0000010.pth").exists()


@pytest.mark.parametrize("hooks", [[], [EMA(ramp_steps=0)]])
def test_bad_statistics_are_not_saved(tmp_path, hooks):
    """Batch statistics beyond float32 leave loss and weights finite."""

    def spoil(trainer):
        trainer.model.norm.running_var[0] = float("inf")

    trainer = Trainer(parts=stub_parts(), output_dir=tmp_path, hooks=[Act(after_step=at_step(9, spoil)), *hooks])
    with pytest.raises(TrainingDiverged, match=r"step 10: .* not finite: norm\.running_var"):
        trainer.train()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.suffix] == ["step_0000005.pth"]
    assert not (tmp_path / "final.pth").exists()


def test_what_was_infinite_from_the_start_may_stay(tmp_path):
    parts = stub_parts()
    parts.model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    Trainer(parts=parts, output_dir=tmp_path).train()
    assert (tmp_path / "final.pth").exists()


@pytest.fixture
def handlers():
    """Python's own handlers of Ctrl-C and SIGTERM, whatever the process that started the tests ignores."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield own
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_and_the_resumed_run_ends_as_one_without(handlers, tmp_path, number, error):
    _, expected = train(tmp_path / "whole")
    send = Act(after_backward=at_step(6, lambda trainer: os.kill(os.getpid(), number)))
    with pytest.raises(error):
        train(tmp_path / "stopped", hooks=[send])
    assert read_checkpoint(tmp_path / "stopped/checkpoints/step_0000007.pth")["step"] == 7
    assert "--resume" in (tmp_path / "stopped/log.txt").read_text()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    _, metrics = train(tmp_path / "stopped", resume=True)
    assert (metrics["loss"], metrics["stub/weight"]) == (expected["loss"], expected["stub/weight"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_process_ignores_stays_ignored(handlers, tmp_path, number):
    signal.signal(number, signal.SIG_IGN)
    send = Act(after_backward=at_step(6, lambda trainer: os.kill(os.getpid(), number)))
    trainer, _ = train(tmp_path, hooks=[send])
    assert trainer.step == 12
    assert signal.getsignal(number) is signal.SIG_IGN


def test_hooks_are_closed_after_an_error(tmp_path):
    closed = []
    hooks = [Act(after_step=raising(RuntimeError("mine")), close=lambda trainer: closed.append(1))]
    with pytest.raises(RuntimeError, match="mine"):
        train(tmp_path, hooks=hooks)
    assert closed == [1]


def test_a_failing_evaluation_costs_no_checkpoint(tmp_path):
    parts = stub_parts()

    def fail(model, folder, last):
        raise RuntimeError("no such metric")

    parts.evaluate = fail
    with pytest.raises(RuntimeError, match="no such metric"):
        Trainer(parts=parts, output_dir=tmp_path).train()
    assert read_checkpoint(tmp_path / "checkpoints/step_0000005.pth")["step"] == 5


def test_a_model_without_losses_says_so():
    class Silent(StubModel):
        def forward(self, inputs):
            return {}

    model = Silent()
    parts = Parts(model=model, optimizer=SGD().build(model), batches=stub_batches, plan=Plan(steps=1))
    with pytest.raises(RecipeError, match="the model returned no losses: does it have a head"):
        Trainer(parts=parts).train()


def test_two_hooks_of_a_class_keep_their_own_state(tmp_path):
    class Counter(Hook):
        def __init__(self, stride):
            self.count, self.stride = 0, stride

        def after_step(self, trainer):
            self.count += self.stride

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    train(tmp_path, steps=5, hooks=[Counter(1), Counter(10)])
    hooks = [Counter(1), Counter(10)]
    train(tmp_path, steps=7, resume=True, hooks=hooks)
    assert [hook.count for hook in hooks] == [7, 70]


def test_bf16_autocast_learns_the_stub(tmp_path):
    train(tmp_path, amp="bf16", steps=60, log_every=20)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < losses[0]
    final = torch.load(tmp_path / "final.pth", weights_only=True)["model"]
    assert final["conv.weight"].dtype == torch.float32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the other process")
def test_a_folder_that_another_process_trains_into_is_refused(tmp_path):
    # a lock belongs to a process, so the other one is real; forked, it has imported everything
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    other = context.Process(target=hold, args=(tmp_path / "run", there))
    other.start()
    try:
        assert here.poll(60) and here.recv() == "held"
        with pytest.raises(RecipeError, match="another process is training in this folder"):
            RunFolder(tmp_path / "run").claim("", 0)
    finally:
        other.kill()
        other.join()
    folder = RunFolder(tmp_path / "run")
    folder.claim("", 0)  # the lock went with the process
    folder.release()
    assert not (tmp_path / "run" / ".lock").exists()


def hold(path, pipe):
    """In the other process: claims the folder, says so, and keeps it until it is killed."""
    folder = RunFolder(path)
    folder.claim("", 0)
    pipe.send("held")
    signal.pause()
