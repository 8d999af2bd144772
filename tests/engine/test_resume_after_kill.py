"""A training that is killed (kill -9) at any point and resumed ends bit for bit as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills need fork")


def run(folder: Path, *arguments: str) -> dict[str, list[str]]:
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


def test_every_kill_point_resumes_to_the_same_bits(tmp_path):
    found = run(tmp_path, "--random-kills", "8")
    assert len(found) >= 15
    assert found == {name: [] for name in found}


def test_the_comparison_notices_a_different_run(tmp_path):
    found = run(tmp_path, "--only", "after a step", "--wrong")
    assert any("conv.weight" in text for text in found["after a step"])
