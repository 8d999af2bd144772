"""SIGTERM and Ctrl-C, sent to the whole process group in any phase of a training, lose nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from two_processes import heed_signals, start_two

from vertebra.config import load_recipe
from vertebra.engine import Trainer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here"),
]

RECIPE = """
plugins: [./slow_parts.py]
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res4], weights: null}
  neck: {name: FPN, out_channels: 8}
  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}
data:
  train: {format: shapes, images: 8, size: 64x64, split: train}
  val: {format: shapes, images: 8, val_images: 2, size: 64x64, split: val}
  train_transforms: [SlowTransform]
  eval_transforms: []
  workers: 2
train:
  steps: 6
  batch_size: 2
  checkpoint_every: 4
  evaluate_every: 3
  hooks: [SlowHook]
  device: cpu
  amp: "off"
evaluate: {amp: "off", pictures: 0, evaluators: [SlowEvaluator, {name: COCOEvaluator, resamples: 0}]}
"""
CASES = [
    # phase, signal, step of the checkpoint it leaves (None: nothing was done yet)
    ("start", signal.SIGTERM, None),
    ("first batch", signal.SIGTERM, 0),
    ("step", signal.SIGTERM, 3),
    ("image", signal.SIGTERM, 3),
    ("numbers", signal.SIGINT, 3),
    ("saving", signal.SIGTERM, 4),
    ("report", signal.SIGINT, 6),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "slow_parts.py").write_text((Path(__file__).with_name("slow_parts.py")).read_text())
    return folder


@pytest.fixture(scope="module")
def whole(project):
    """The final weights of a run that nothing stopped."""
    return finish(project, "whole")


def finish(project: Path, name: str, *, resume: bool = False) -> dict[str, torch.Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    Trainer(load_recipe(str(project / "recipe.yaml")), project / name, resume=resume).train()
    torch.set_num_threads(before)
    return torch.load(project / name / "final.pth", weights_only=True)["model"]


@pytest.mark.parametrize(("phase", "number", "step"), CASES)
def test_a_signal_to_the_group_saves_and_the_resumed_run_has_the_same_bits(project, whole, phase, number, step):
    name, marker = phase.replace(" ", "_"), project / "slow"
    marker.unlink(missing_ok=True)
    command = [sys.executable, "-m", "vertebra", "train", "recipe.yaml", "--output", name]
    environment = os.environ | {"SLOW": phase, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        start_new_session=True,
        preexec_fn=heed_signals,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not marker.exists():
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.02)
        os.killpg(running.pid, number)
        started = time.monotonic()
        _, stderr = running.communicate(timeout=60)
        seconds = time.monotonic() - started
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    print(f"{phase}: {seconds:.1f} s, exit code {running.returncode}")
    assert running.returncode == 128 + number, stderr
    assert "Traceback" not in stderr
    assert left_of(running.pid) == []
    found = sorted(path.name for path in (project / name / "checkpoints").glob("*.pth"))
    assert (found[-1] if found else None) == (None if step is None else f"step_{step:07d}.pth")
    resumed = finish(project, name, resume=True)
    assert all(torch.equal(whole[key], value) for key, value in resumed.items())


def left_of(group: int) -> list[int]:
    """Processes of a group that are still there after a moment."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return []
        time.sleep(0.1)
    return [group]


@pytest.mark.parametrize(("phase", "step"), [("step", 3), ("image", 3)])
def test_two_processes_stop_at_the_same_step(project, phase, step):
    """Each gets the signal, as from SLURM or torchrun; waiting for each other does not keep them."""
    name, marker = f"two_{phase}", project / "slow"
    marker.unlink(missing_ok=True)
    command = [sys.executable, "-m", "vertebra", "train", "recipe.yaml", "--output", name]
    running = start_two(command, project, SLOW=phase)
    try:
        while not marker.exists():
            assert all(one.poll() is None for one in running), [one.communicate() for one in running]
            time.sleep(0.02)
        for one in running:
            os.killpg(one.pid, signal.SIGTERM)
        started = time.monotonic()
        texts = [one.communicate(timeout=60)[1] for one in running]
        seconds = time.monotonic() - started
    finally:
        for one in running:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
    print(f"{phase}, two processes: {seconds:.1f} s, exit codes {[one.returncode for one in running]}")
    assert [one.returncode for one in running] == [143, 143], texts
    assert not any("Traceback" in text for text in texts), "\n".join(texts)
    found = sorted(path.name for path in (project / name / "checkpoints").glob("*.pth"))
    assert found[-1] == f"step_{step:07d}.pth"
    finish(project, name, resume=True)
