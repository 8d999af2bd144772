"""The supported Pythons: one statement of them, pins for each, and a plain refusal of older ones."""

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def check_pythons():
    spec = importlib.util.spec_from_file_location("check_pythons", ROOT / "tools/check_pythons.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_statement_of_the_supported_pythons_agrees(check_pythons):
    minors = check_pythons.supported_minors(PYPROJECT)
    assert minors == list(range(minors[0], minors[-1] + 1))
    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.rglob("pyproject.toml.template")]
    assert len(files) > 2
    for file in files:
        assert f'requires-python = ">=3.{minors[0]}"' in file.read_text(), file
    readme = (ROOT / "README.md").read_text()
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in readme
    torch = re.search(r"torch ([\d.]+\d) with torchvision ([\d.]+\d)", readme)
    assert [f"torch=={torch[1]}.*", f"torchvision=={torch[2]}.*"] == check_pythons.oldest_torch(PYPROJECT)


def test_a_package_has_one_pin_on_every_supported_python(check_pythons):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    names = {pin.name for pin in pins}
    assert "torch" in names
    for minor in check_pythons.supported_minors(PYPROJECT):
        python = {"python_version": f"3.{minor}"}
        applicable = Counter(pin.name for pin in pins if pin.marker is None or pin.marker.evaluate(python))
        assert applicable == dict.fromkeys(names, 1), f"Python 3.{minor}"


def test_an_inactive_version_of_pyenv_on_the_path_is_passed_over(check_pythons, tmp_path, monkeypatch):
    for folder, words in (("shims", "exit 127"), ("pyenv/versions/3.12.1/bin", "echo 12")):
        program = tmp_path / folder / "python3.12"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert check_pythons.find_interpreter(12) == str(tmp_path / "pyenv/versions/3.12.1/bin/python3.12")
    assert check_pythons.find_interpreter(13) is None


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("target", ["setup", "check-pythons"])
def test_make_refuses_an_older_python_in_one_sentence(check_pythons, tmp_path, target):
    oldest = check_pythons.supported_minors(PYPROJECT)[0]
    command = [
        "make",
        "--no-print-directory",
        target,
        "PYTHON=false",
        f"VENV={tmp_path / 'venv'}",
    ]  # `false` fails as an older Python does
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.startswith(f"Vertebra needs Python 3.{oldest} or newer; false is older or not installed.")
    assert not (tmp_path / "venv").exists()
