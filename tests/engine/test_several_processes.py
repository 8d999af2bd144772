"""Training in two processes (gloo) equals training in one with the same total batch."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from stub_parts import stub_batches, stub_parts

from vertebra.engine import Trainer, launch
from vertebra.errors import RecipeError
from vertebra.runtime import distributed

pytestmark = pytest.mark.slow


def train(folder: str, resume: bool, steps: int) -> None:
    """What each process runs."""
    torch.set_num_threads(1)
    distributed.initialize(torch.device("cpu"))
    parts = stub_parts(steps, dropout=0.0)
    parts.model.norm = torch.nn.Identity()  # batch statistics would be each process's own
    parts.optimizer = type(parts.optimizer)(parts.model.parameters(), lr=0.05, momentum=0.9)
    parts.batches = partial(stub_batches, rank=distributed.rank(), world_size=distributed.world_size())
    parts.schedule = None  # the shorter run would have shorter milestones
    trainer = Trainer(parts=parts, output_dir=folder, resume=resume)
    trainer.train()
    ranks = distributed.gather_objects(distributed.rank())
    if trainer.is_main_process:
        (Path(folder) / "ranks.json").write_text(json.dumps(ranks))


def fail() -> None:
    raise RecipeError("no such recipe")


def final(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pth", weights_only=True)["model"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(sys.modules, "test_several_processes", sys.modules[__name__])
    for function in (train, fail):  # what spawn pickles is the module's plain name
        monkeypatch.setattr(function, "__module__", "test_several_processes")


def test_two_processes_equal_one_and_resume(tmp_path):
    train(str(tmp_path / "one"), False, 8)
    launch(train, 2, args=(str(tmp_path / "two"), False, 5))
    launch(train, 2, args=(str(tmp_path / "two"), True, 8))
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(one["conv.weight"], stub_parts(1).model.conv.weight)
    assert (tmp_path / "two/ranks.json").read_text() == "[0, 1]"
    records = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    ones = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [3, 5, 6, 8]
    assert records[0]["loss"] == pytest.approx(ones[0]["loss"], rel=1e-4)  # the mean over both


def test_a_users_error_comes_out_of_the_processes_as_itself():
    with pytest.raises(RecipeError, match="no such recipe"):
        launch(fail, 2)
