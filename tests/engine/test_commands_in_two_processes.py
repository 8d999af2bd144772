"""Every command that several processes can run shares its work; the others refuse."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from two_processes import start_two

from vertebra.errors import SetupError
from vertebra.runtime import distributed, process

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res4], weights: null}
  neck: {name: FPN, out_channels: 8}
  heads: {boxes: {name: RetinaNetHead, num_convs: 1, prior_prob: 0.3, score_threshold: 0.2}}
data:
  train: {format: shapes, images: 8, size: 64x64, split: train}
  val: {format: shapes, images: 8, val_images: 7, size: 64x64, split: val}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 4, batch_size: 2, checkpoint_every: 2, device: cpu, amp: "off"}
evaluate: {pictures: 2, amp: "off"}
"""
ROOT = Path(__file__).resolve().parents[2]
SHARED_WORK = ["train", "evaluate", "components", "config", "doctor"]


def two(words: list, folder: Path, **each: list) -> list[subprocess.CompletedProcess]:
    """Runs a program in two processes. each: words of one rank alone."""
    own = (each.get("rank0", []), each.get("rank1", []))
    started = start_two([sys.executable, *words], folder, own, VERTEBRA_CACHE=str(folder / "cache"))
    ended = []
    for one in started:
        stdout, stderr = one.communicate(timeout=200)
        ended.append(subprocess.CompletedProcess(one.args, one.returncode, stdout, stderr))
    return ended


@pytest.fixture
def project(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.e2e
def test_train_evaluate_and_resume_share_their_work(project):
    first, second = two(["-m", "vertebra", "train", "recipe.yaml", "train.steps=2"], project)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [path.name for path in (project / "runs").iterdir()] == ["recipe"]  # both chose one folder
    assert not second.stdout and "bbox" in first.stdout
    first, second = two(["-m", "vertebra", "train", "recipe.yaml", "--resume"], project)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert torch.load(project / "runs/recipe/final.pth", weights_only=True)["step"] == 4

    weights = ["--weights", "runs/recipe/final.pth"]
    alone = [sys.executable, "-m", "vertebra", "evaluate", "recipe.yaml", *weights, "--output", "alone"]
    subprocess.run(alone, cwd=project, check=True, env=os.environ | {"VERTEBRA_CACHE": str(project / "cache")})
    scripts = {
        "evaluate": ["-m", "vertebra", "evaluate", "recipe.yaml", *weights],
        "train_net": [ROOT / "tools/train_net.py", "--config-file", "recipe.yaml", "--eval-only"],
    }
    scripts["train_net"] += ["--output", "train_net", "model.weights=runs/recipe/final.pth"]
    for name, words in scripts.items():
        first, second = two(words, project)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert "bbox" in first.stdout and not second.stdout
        folder = project / ("runs/recipe/evaluation-2" if name == "evaluate" else name)
        metrics, wanted = (json.loads((at / "metrics.json").read_text()) for at in (folder, project / "alone"))
        assert (metrics["info"]["processes"], metrics["info"]["images"]) == (2, 7)
        assert {key: metrics[key] for key in metrics if "/" in key} == {k: wanted[k] for k in wanted if "/" in k}
        assert json.loads((folder / "coco_results.json").read_text()) == json.loads(
            (project / "alone" / "coco_results.json").read_text()
        )


@pytest.mark.e2e
def test_train_net_starts_its_processes_itself(project):
    words = [ROOT / "tools/train_net.py", "--config-file", "recipe.yaml", "--num-gpus", "2", "--output", "run"]
    environment = os.environ | {"VERTEBRA_CACHE": str(project / "cache")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=project, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((project / "run/evaluation/metrics.json").read_text())["info"]["processes"] == 2


@pytest.mark.e2e
def test_a_rank_without_the_checkpoint_stops_all_before_the_first_step(project):
    assert not any(one.returncode for one in two(["-m", "vertebra", "train", "recipe.yaml", "-o", "run"], project))
    (project / "run/final.pth").unlink()
    words = ["-m", "vertebra", "train", "recipe.yaml", "train.steps=6", "--resume"]
    started = time.monotonic()
    both = two(words, project, rank0=["-o", "run"], rank1=["-o", "elsewhere"])
    assert time.monotonic() - started < 60
    for one in both:
        assert one.returncode == 2
        assert "step: rank 0 has 4, rank 1 has 0" in one.stderr and "a shared disk" in one.stderr
        assert "Traceback" not in one.stderr
    assert not (project / "run/final.pth").exists()


@pytest.mark.e2e
def test_ranks_with_other_recipes_or_weights_stop(project):
    both = two(["-m", "vertebra", "train", "recipe.yaml", "-o", "run"], project, rank1=["train.steps=5", "seed=1"])
    for one in both:
        assert one.returncode == 2 and "Traceback" not in one.stderr
        assert "recipe: rank 0 has" in one.stderr and "weights: rank 0 has" in one.stderr


def test_all_other_commands_refuse(command_line):
    from vertebra.cli.app import app

    named = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert set(SHARED_WORK) < named
    for name in sorted(named - set(SHARED_WORK)):
        done = command_line(name, "anything", code=2, WORLD_SIZE="2", RANK="0")
        assert f"`vertebra {name}` runs in one process, but WORLD_SIZE is 2" in done.stderr, done.stderr
    assert "RetinaNetHead" in command_line("components", WORLD_SIZE="2", RANK="0").stdout


def test_disagreement_names_the_values_of_each_rank(monkeypatch):
    monkeypatch.setattr(distributed, "gather_objects", lambda facts: [facts, facts | {"step": 0}])
    with pytest.raises(SetupError, match=r"(?s)do not agree.*step: rank 0 has 7, rank 1 has 0\n  Share the disk"):
        process.check_ranks_agree({"step": 7, "recipe": "a"}, "Share the disk")
