"""No process waits for another one that is gone, and none is left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.runtime.fellows import Fellows

RECIPE = """
plugins: [./odd_parts.py]
model:
  backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res4], weights: null}
  neck: {name: FPN, out_channels: 8}
  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}
data:
  train: {format: shapes, images: 8, size: 64x64, split: train}
  val: {format: shapes, images: 8, val_images: 4, size: 64x64, split: val}
  train_transforms: []
  eval_transforms: []
  workers: 1
train:
  steps: 6
  batch_size: 2
  checkpoint_every: 2
  hooks: [Odd]
  device: cpu
  amp: "off"
evaluate: {amp: "off", report: false}
"""
PARTS = '''
import os, signal, time
from pathlib import Path
from vertebra import HOOKS, Hook

@HOOKS.register()
class Odd(Hook):
    """On rank 1, after the third step, once: what the variable ODD says."""
    def after_backward(self, trainer):
        if os.environ.get("RANK", "0") != "1" or trainer.step != 3 or Path("odd").exists():
            return
        odd = os.environ.get("ODD")
        if odd:
            Path("odd").write_text(str(time.time()))
        if odd == "raise":
            raise ValueError("the mixture is unstable")
        if odd == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "odd_parts.py").write_text(PARTS)
    return tmp_path


def torchrun(project: Path, *options: str, odd: str = "") -> tuple[subprocess.CompletedProcess, float]:
    """Trains in two processes; returns what torchrun printed, and seconds from the odd moment to its end."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    words += [*options, "-m", "vertebra", "train", "recipe.yaml", "--output", "run", "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ODD": odd}
    done = subprocess.run(
        words, cwd=project, env=environment, capture_output=True, text=True, timeout=250, start_new_session=True
    )
    moment = project / "odd"
    return done, time.time() - float(moment.read_text()) if moment.exists() else 0.0


def nobody_left(project: Path) -> bool:
    """No process of this project is running."""
    for _ in range(100):
        found = [entry for entry in Path("/proc").glob("[0-9]*/cwd") if _leads_to(entry, project)]
        if not found:
            return True
        time.sleep(0.1)
    return False


def _leads_to(entry: Path, folder: Path) -> bool:
    try:
        return os.readlink(entry) == str(folder)
    except OSError:
        return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@linux
@pytest.mark.e2e
def test_a_rank_that_raises_ends_the_others_with_its_message(project):
    done, seconds = torchrun(project, odd="raise")
    print(f"ended {seconds:.1f} s after the failure, exit code {done.returncode}")
    assert done.returncode != 0 and seconds < 30
    assert "vertebra: rank 1 failed: ValueError: the mixture is unstable" in done.stderr
    assert "Connection closed by peer" not in done.stderr
    assert nobody_left(project)


@linux
@pytest.mark.e2e
def test_a_killed_rank_is_restarted_and_ends_with_the_same_bits(project):
    before = torch.get_num_threads()
    torchrun(project)
    whole = torch.load(project / "run/final.pth", weights_only=True)["model"]
    (project / "run").rename(project / "whole")
    done, seconds = torchrun(project, "--max-restarts", "2", odd="kill")
    print(f"restarted and finished {seconds:.1f} s after the kill, exit code {done.returncode}")
    assert done.returncode == 0, done.stderr
    found = torch.load(project / "run/final.pth", weights_only=True)["model"]
    assert all(torch.equal(whole[name], value) for name, value in found.items())
    assert "resuming run/checkpoints/step_0000002.pth" in (project / "run/log.txt").read_text()
    assert nobody_left(project) and torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.call("unshare -m mount -t tmpfs -o size=64k tmpfs /dev/shm 2>/dev/null", shell=True) != 0,
    reason="only root can mount a small /dev/shm",
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_full_dev_shm_is_one_message(project, command):
    words = "train recipe.yaml data.workers=2 --output small"
    if command == "evaluate":
        Trainer(load_recipe(str(project / "recipe.yaml"), ["data.val=null", "data.workers=0"]), project / "run").train()
        words = "evaluate recipe.yaml --weights run/final.pth data.workers=2"
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec timeout -s KILL 100"
    script = f"{mount} {sys.executable} -m vertebra {words}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=project, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "shared memory is full" in done.stderr and "/dev/shm has 0.0625 MiB" in done.stderr
    assert "--shm-size" in done.stderr and "Traceback" not in done.stderr
    assert nobody_left(project)


class Store(dict):
    """What processes tell each other, in a dict."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]

    def check(self, keys):
        return all(key in self for key in keys)


@pytest.fixture
def quick(monkeypatch):
    from vertebra.runtime import fellows

    monkeypatch.setattr(fellows, "_LOOK", 0.01)
    monkeypatch.setattr(fellows, "_GRACE", 0.05)


def wait_for(ended: list, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not ended and time.monotonic() < end:
        time.sleep(0.01)


def test_the_first_failure_reaches_the_others_and_stays(quick):
    store, ended = Store(), []
    first, second, third = (Fellows(store, rank, 3, ended.append) for rank in range(3))
    third.start()
    second.tell("out of paint")
    first.tell("a consequence of that")
    assert first.failure() == "rank 1 failed: out of paint" and second.failure() is None
    wait_for(ended)
    third.stop()
    assert ended == ["rank 1 failed: out of paint"]


def test_a_silent_rank_is_named(quick):
    store, ended = Store(), []
    watching, silent = Fellows(store, 0, 2, ended.append, silent=0.3), Fellows(store, 1, 2)
    silent.store.set("vertebra/alive/1", "7")
    watching.start()
    wait_for(ended)
    watching.stop()
    assert len(ended) == 1 and ended[0].startswith("rank 1 has given no sign of life for 0.3 seconds")


def test_a_rank_that_leaves_in_order_alarms_nobody(quick):
    store, ended = Store(), []
    one, two = (Fellows(store, rank, 2, ended.append) for rank in (0, 1))
    one.start()
    two.start()
    two.stop()
    store.set("vertebra/who/1", store.get("vertebra/who/1").decode().rpartition(" ")[0] + " 99999999")
    time.sleep(0.2)
    one.stop()
    store.set("vertebra/failed", "rank 1 failed: later")
    time.sleep(0.2)
    assert not ended


@linux
def test_a_rank_whose_process_does_not_exist_is_gone(quick):
    store, ended = Store(), []
    one, two = (Fellows(store, rank, 2, ended.append) for rank in (0, 1))
    two.start()
    store.set("vertebra/who/1", store.get("vertebra/who/1").decode().rpartition(" ")[0] + " 99999999")
    one.start()
    wait_for(ended)
    assert ended == ["rank 1 is gone: its process ended without a word (killed, or out of memory?)"]
    one.stop()
    two.stop()


def test_without_a_store_only_those_who_saw_its_owner_leave_go_on(quick):
    class Gone(Store):
        def check(self, keys):
            raise ConnectionError

    for left in (True, False):
        ended = []
        one = Fellows(Store(), 1, 2, ended.append)
        if left:
            one.store.set("vertebra/left/0", "1")
        one.start()
        time.sleep(0.1)
        one.store = Gone()
        time.sleep(0.4)
        assert len(ended) == (0 if left else 1)
        one.stop()
