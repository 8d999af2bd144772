"""A recipe, a checkpoint and a third-party plugin that were written before: they load, resume and evaluate as then."""

import json
import shutil
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture
def work(tmp_path):
    """A copy of the files in which commands may write."""
    for name in ("data", "run"):
        shutil.copytree(HERE / name, tmp_path / name)
    shutil.copy(HERE / "tiny.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def run(command_line, work):
    def run(*words):
        return command_line(*words, cwd=work, site=HERE / "site")

    return run


def check(folder: Path) -> None:
    expected = json.loads((HERE / "expected.json").read_text())
    found = json.loads((folder / "metrics.json").read_text())
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert expected["bbox/AP"] > 0.05 and expected["tiny/AP"] == expected["bbox/AP"]


def test_its_weights_evaluate_to_the_same_numbers(run, work):
    run("evaluate", "tiny.yaml", "--weights", "run/final.pth", "--output", "evaluated")
    check(work / "evaluated")


def test_its_run_resumes_to_the_same_weights_and_numbers(run, work):
    expected = torch.load(work / "run/final.pth", weights_only=True)
    (work / "run/final.pth").unlink()
    run("train", "run/recipe.yaml", "--output", "run", "--resume")
    found = torch.load(work / "run/final.pth", weights_only=True)
    assert found["step"] == expected["step"] == 600
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-4, atol=1e-5)
    hooks = torch.load(work / "run/checkpoints/step_0000600.pth", weights_only=True)["hooks"]
    assert hooks["CountSteps"] == {"count": 600}
    check(work / "run/evaluation")


def test_its_recipe_trains_and_predicts(run, work):
    run("train", "tiny.yaml", "train.steps=21", "--output", "new")
    done = run("predict", "new/recipe.yaml", "data", "--weights", "run/final.pth", "--output", "seen", "--score", "0.1")
    assert "8 images" in done.stdout
    assert len(json.loads((work / "seen/predictions.json").read_text())) > 0


def test_the_plugin_is_listed_with_all_its_components(run):
    done = run("plugins", "check", "tiny-detector")
    assert "tiny-detector 1.0" in done.stdout and "0 broken" in done.stdout.replace("none broken", "0 broken")
