"""Hooks one by one."""

import json
import sys

import pytest
import torch
from stub_parts import stub_parts
from torch import nn

from vertebra.engine import Hook, Trainer
from vertebra.engine.hooks.bad_loss import StopOnBadLoss
from vertebra.engine.hooks.early_stop import EarlyStop
from vertebra.engine.hooks.ema import EMA
from vertebra.engine.hooks.metrics_file import MetricsFile, read_metrics
from vertebra.engine.hooks.tensorboard import TensorBoard
from vertebra.engine.hooks.warmup_momentum import WarmupMomentum
from vertebra.engine.run_folder import RunFolder
from vertebra.errors import SetupError, TrainingDiverged


class Stand:
    """As much of a Trainer as a hook under test reads."""

    def __init__(self, **facts) -> None:
        self.step, self.stopped, self.device, self.is_main_process = 0, None, torch.device("cpu"), True
        self.__dict__.update(facts)

    def stop(self, reason):
        self.stopped = reason


def one_weight(value: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_ema_by_hand():
    trainer = Stand(model=one_weight(1.0), evaluated_model=None)
    ema = EMA(decay=0.75, ramp_steps=0)
    ema.before_train(trainer)
    assert trainer.evaluated_model is not trainer.model
    for value, expected in ((5.0, 0.75 * 1 + 0.25 * 5), (1.0, 0.75 * 2 + 0.25 * 1)):
        nn.init.constant_(trainer.model.weight, value)
        ema.after_step(trainer)
        assert trainer.evaluated_model.weight.item() == pytest.approx(expected)


def test_ema_averages_running_statistics_and_copies_counters():
    model = nn.BatchNorm1d(1)
    trainer = Stand(model=model)
    ema = EMA(decay=0.5, ramp_steps=0)
    ema.before_train(trainer)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked.fill_(7)
    ema.after_step(trainer)
    assert ema.average.running_mean.item() == 2.0
    assert ema.average.num_batches_tracked.item() == 7


def test_ema_ramp_forgets_the_start():
    trainer = Stand(model=one_weight(0.0))
    ema = EMA(decay=0.9998, ramp_steps=2000)
    ema.before_train(trainer)
    nn.init.constant_(trainer.model.weight, 1.0)
    ema.after_step(trainer)
    assert ema.average.weight.item() > 0.999  # d is 0.9998 * (1 - exp(-1 / 2000)) = 0.0005


def test_final_weights_and_evaluation_are_the_average(tmp_path):
    parts = stub_parts()
    seen = []
    parts.evaluate = lambda model, folder, last: {"stub/weight": seen.append(model) or 1.0}
    trainer = Trainer(parts=parts, output_dir=tmp_path, hooks=[EMA(decay=0.5, ramp_steps=0)])
    trainer.train()
    final = torch.load(tmp_path / "final.pth", weights_only=True)["model"]
    assert torch.equal(final["conv.weight"], trainer.evaluated_model.conv.weight)
    assert not torch.equal(final["conv.weight"], trainer.model.conv.weight)
    assert all(model is trainer.evaluated_model for model in seen)


def feed(hook, values, metric="bbox/AP"):
    trainer = Stand()
    for step, value in enumerate(values, start=1):
        if trainer.stopped is None:
            hook.write(trainer, {"step": step, metric: value})
    return hook.seen, trainer.stopped


def test_early_stop_by_hand():
    assert feed(EarlyStop(patience=2), [0.1, 0.2, 0.2, 0.15, 0.9]) == (
        4,
        "bbox/AP did not improve on 0.2 in 2 records",
    )
    assert feed(EarlyStop(patience=2), [0.1, 0.2, 0.1, 0.3, 0.2]) == (5, None)


def test_early_stop_lower_min_change_and_undefined():
    assert feed(EarlyStop("loss", 2, "lower", min_change=0.1), [1.0, 0.95, 0.92, 0.1], "loss")[0] == 3
    assert feed(EarlyStop(patience=2), [None, None, 0.5])[0] == 2


def test_early_stop_ends_a_run_and_its_resumption(tmp_path):
    parts, calls = stub_parts(100), []
    parts.evaluate = lambda model, folder, last: calls.append(last) or {"bbox/AP": 0.5}
    trainer = Trainer(parts=parts, output_dir=tmp_path, hooks=[EarlyStop(patience=2)])
    trainer.train()
    assert trainer.step == 15  # best at 5, misses at 10 and 15
    assert calls == [False, False, False, True]  # the last one again with the report
    again = stub_parts(100)
    again.evaluate = parts.evaluate
    trainer = Trainer(parts=again, output_dir=tmp_path, resume=True, hooks=[EarlyStop(patience=2)])
    trainer.train()
    assert trainer.step == 15


def test_a_bad_loss_on_a_gpu_is_noticed_at_the_interval_and_before_a_checkpoint():
    """The deferred look, with a device that only calls itself something else than a CPU."""

    class Device:
        type = "other"

    trainer = Stand(device=Device(), losses={"a": torch.tensor(1.0)}, model=one_weight(1.0))
    hook = StopOnBadLoss(every=4)
    hook.after_backward(trainer)
    trainer.losses = {"a": torch.tensor(float("nan"))}
    trainer.step = 1
    hook.after_backward(trainer)  # remembered only
    trainer.losses = {"a": torch.tensor(1.0)}
    with pytest.raises(TrainingDiverged, match="not finite in one of the 4 steps"):
        hook.before_checkpoint(trainer)
    trainer.step = 3
    with pytest.raises(TrainingDiverged):
        hook.after_backward(trainer)


def test_clipping_bounds_the_gradient_and_logs_the_norm(tmp_path):
    norms = []

    class Look(Hook):
        def after_backward(self, trainer):
            grads = [p.grad.flatten() for p in trainer.model.parameters()]
            norms.append((torch.cat(grads).norm().item(), float(trainer.scalars["grad_norm"])))

    trainer = Trainer(parts=stub_parts(clip_gradients=0.01), output_dir=tmp_path, hooks=[Look()])
    trainer.train()
    assert all(after <= 0.01 * 1.0001 for after, _ in norms)
    assert any(before > 0.01 for _, before in norms)
    assert trainer.metrics["grad_norm"] == pytest.approx(sum(before for _, before in norms[-3:]) / 3, rel=1e-4)


def test_metrics_file_drops_what_is_done_again_and_half_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 3, "loss": 1.0}', '{"step": 5, "bbox/AP": 0.1}', '{"step": 6, "loss": 0.5}', '{"step": 9, "lo']
    path.write_text("\n".join(lines))
    hook, trainer = MetricsFile(), Stand(step=5, folder=RunFolder(tmp_path))
    hook.before_train(trainer)
    hook.write(trainer, {"step": 5, "bbox/AP": 0.1})  # known already
    hook.write(trainer, {"step": 6, "loss": float("nan")})
    hook.close(trainer)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 3, "loss": 1.0},
        {"step": 5, "bbox/AP": 0.1},
        {"step": 6, "loss": None},
    ]
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_tensorboard_writes_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Trainer(parts=stub_parts(), output_dir=tmp_path, hooks=[TensorBoard()]).train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("stub/weight")] == [5, 10, 12]


def test_tensorboard_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SetupError, match="pip install"):
        Trainer(parts=stub_parts(), output_dir=tmp_path, hooks=[TensorBoard()]).train()


def test_momentum_rises_and_stays():
    hook = WarmupMomentum(steps=10, start=0.5, end=0.9)
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.1)
    adam = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], betas=(0.1, 0.99))
    for step, wanted in ((0, 0.5), (5, 0.7), (10, 0.9), (400, 0.9)):
        for optimizer in (sgd, adam):
            hook.before_step(Stand(step=step, optimizer=optimizer))
        assert sgd.param_groups[0]["momentum"] == pytest.approx(wanted)
        assert adam.param_groups[0]["betas"] == (pytest.approx(wanted), 0.99)


def test_momentum_needs_an_optimizer_that_has_some():
    optimizer = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="Adagrad has no momentum"):
        WarmupMomentum(steps=1).before_train(Stand(optimizer=optimizer))
