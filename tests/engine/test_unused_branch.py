"""A branch that a step does not use: fine in one process; in several, named with the remedy, which works."""

import sys

import pytest
import torch
from two_processes import start_two

PLUGIN = """
import os
from torch import nn
from vertebra.models import Head
from vertebra.registry import HEADS


@HEADS.register()
class TwoBranches(Head):
    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, input_shape, num_classes: int, used: str = "always") -> None:
        super().__init__()
        channels = next(iter(input_shape.values())).channels
        self.score, self.branch = nn.Conv2d(channels, 1, 1), nn.Conv2d(channels, 1, 1)
        self.used, self.calls = used, 0

    def forward(self, features):
        found = next(iter(features.values()))
        self.calls += 1
        on_rank_1 = os.environ.get("RANK") == "1"
        skipped = {"always": False, "never": True, "later": self.calls > 2, "rank": on_rank_1}[self.used]
        return self.score(found) + (0 if skipped else self.branch(found))

    def losses(self, raw, batch):
        return {"size": raw.square().mean()}
"""
RECIPE = """
plugins: [branches.py]
model:
  backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res2], weights: null}
  heads: {pixels: {name: TwoBranches}}
data:
  train: {format: shapes, images: 4, split: train, size: 64}
  train_transforms: []
  workers: 0
train: {steps: 4, batch_size: 2, log_every: 1, device: cpu, amp: "off"}
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "branches.py").write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(used, *overrides):
        words = ["-m", "vertebra", "train", "recipe.yaml", "--output", "run", f"model.heads.pixels.used={used}"]
        processes = start_two([sys.executable, *words, *overrides], tmp_path)
        try:
            ends = [process.communicate(timeout=240) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [process.returncode for process in processes], [err for _, err in ends]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("used", "step"), [("never", 1), ("later", 3), ("rank", 1)])
def test_two_processes_name_the_parameters(start, used, step):
    codes, errors = start(used)
    assert codes == [2, 2], errors
    for err in errors:
        assert f"step {step} did not use 2 parameters" in err
        assert "heads.pixels.branch.weight, heads.pixels.branch.bias" in err
        assert "train.find_unused_parameters=true" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_the_remedy_trains(start, tmp_path):
    codes, errors = start("rank", "train.find_unused_parameters=true")
    assert codes == [0, 0], errors
    assert torch.load(tmp_path / "run" / "final.pth", weights_only=True)["step"] == 4


def test_one_process_needs_none(start, command_line, tmp_path):
    command_line("train", "recipe.yaml", "model.heads.pixels.used=never", "--output", "run", cwd=tmp_path)
