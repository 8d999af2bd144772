"""A training that is killed (kill -9) at any point and resumed ends bit for bit as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills need fork")


SMALL = (
    "{format: shapes, images: 16, val_images: 2, size: 64x64, split: SPLIT}",
    ["train.steps=12", "train.epochs=null", "train.checkpoint_every=5", "train.log_every=3", "train.batch_size=2"],
)


def run(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """In a process of its own, which forks those that are killed: what differs after each kill."""
    script = Path(__file__).with_name("killed_runs.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.e2e
def test_every_kill_point_resumes_to_the_same_bits(tmp_path):
    found = run(tmp_path, "--random-kills", "8")
    assert len(found) >= 15
    assert found == {name: [] for name in found}


@pytest.mark.slow
def test_the_comparison_notices_a_different_run(tmp_path):
    found = run(tmp_path, "--only", "after a step", "--wrong")
    assert any("conv.weight" in text for text in found["after a step"])


@pytest.mark.e2e
def test_a_real_recipe_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Real images through worker processes, a RetinaNet in its default precision, COCO numbers at the end."""
    pytest.importorskip("vertebra_retinanet")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    dataset, settings = SMALL
    data = [f"data.{split}={dataset.replace('SPLIT', split)}" for split in ("train", "val")]
    points = ["between backward and step", "half a second checkpoint", "in the metrics file", "in the last evaluation"]
    recipe = ["--recipe", "retinanet:retinanet_shapes_quick"]
    found = run(tmp_path / "runs", *data, *settings, "evaluate.report=false", *recipe, "--only", *points)
    assert found == {name: [] for name in points}
