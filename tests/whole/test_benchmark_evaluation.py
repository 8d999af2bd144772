"""The benchmark's small version: not how fast, but that all contestants here give the same bits."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def figures(repository, tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "figures.json"
    words = "--task bbox segm keypoints lvis panoptic --from records --images 15 --per-image 30 --repeats 1 --only"
    own = ["vertebra-eval", "its drop-in", "pycocotools"]
    command = [sys.executable, str(repository / "tools" / "benchmark_evaluation.py"), *words.split(), *own]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, check=True)
    assert "failed" not in done.stdout, done.stdout
    return json.loads(path.read_text())


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
def test_all_give_the_bits_of_pycocotools(figures, task):
    rows = figures[f"{task}, records"]
    assert {name: row["apart"] for name, row in rows.items()} == dict.fromkeys(
        ("vertebra-eval", "its drop-in", "pycocotools"), "bits"
    )


@pytest.mark.parametrize("task", ["lvis, records", "panoptic, files"])
def test_a_task_that_only_vertebra_eval_has_here_is_measured_too(figures, task):
    assert list(figures[task]) == ["vertebra-eval"]
    assert figures[task]["vertebra-eval"]["cpu"] > 0
