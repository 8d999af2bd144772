"""What the README shows works as it stands."""

import re
import subprocess
import sys

import pytest

RECIPE = """
plugins: [./my_head.py]
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res5]}
  heads:
    presence: {name: PresenceHead, dropout: 0.1}
data:
  train: {format: shapes, images: 8, split: train, size: 64}
  val: {format: shapes, images: 8, split: val, size: 64}
  train_transforms: [RandomFlip]
  eval_transforms: []
  workers: 0
train: {steps: 2, batch_size: 2}
evaluate: {evaluators: []}
"""


@pytest.fixture(scope="module")
def blocks(repository):
    """(language, text) of each fenced block."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.e2e
def test_the_plugin_of_the_readme_trains(blocks, tmp_path, monkeypatch):
    code = next(text for language, text in blocks if language == "python" and "class PresenceHead" in text)
    (tmp_path / "my_head.py").write_text(code, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    # a process of its own: the whole way of a command, from the start of Python to its end
    command = [sys.executable, "-m", "vertebra", "train", "mine.yaml", "--output", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "presence/presence" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_recipe_of_the_readme_is_valid(blocks, tmp_path):
    from vertebra import load_recipe

    text = next(text for language, text in blocks if language == "yaml" and "_base_" in text)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.train.epochs == 24
    assert recipe.train.steps is None
    assert recipe.data.train.arguments["annotations"] == "train.json"
    recipe.train.schedule.build().check(24 * 25)  # a folder of a hundred images


def test_every_file_that_the_readme_points_to_exists(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert len(targets) >= 6
    missing = [target for target in targets if not (repository / target).exists()]
    assert not missing
