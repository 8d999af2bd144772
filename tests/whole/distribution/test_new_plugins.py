"""`vertebra plugins new`: what it writes installs, passes its own tests and trains, in a fresh environment."""

import pytest
from fresh_venv import build_wheel

from vertebra.scaffold import SCAFFOLD_KINDS, new_plugin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FEW = ["data.train.images=8", "data.train.val_images=4", "data.val.images=8", "data.val.val_images=4"]
STEPS = ["data.workers=0", "train.steps=2", "train.batch_size=2", "evaluate.report=false", "train.device=cpu"]


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_a_new_plugin_installs_passes_its_tests_and_trains(kind, installed, tmp_path):
    made = new_plugin(f"sample-{kind}", kind, tmp_path / "sources")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    installed.install(build_wheel(made.folder, tmp_path, wheels))

    assert made.components[kind] in installed.run("vertebra", "plugins", cwd=tmp_path)
    tests = made.folder / "tests"
    chosen = [] if kind == "head" else ["-m", "not slow"]
    passed = installed.run("python", "-m", "pytest", "-c", made.folder / "pyproject.toml", *chosen, tests, cwd=tmp_path)
    assert "passed" in passed
    few = [] if kind == "format" else FEW
    installed.run("vertebra", "train", *made.recipes[0], *few, *STEPS, "--output", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "final.pth").is_file()
