"""The wheels of the core and of all bundled plugins, built once, and a fresh environment with them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fresh_venv import FreshVenv, build_wheel

CORE_PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "core/vertebra")


@pytest.fixture(scope="session")
def wheels(repository, tmp_path_factory) -> dict[str, Path]:
    """{distribution's folder, or "core", "eval": wheel}."""
    out, work = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("sources")
    found = {"core": build_wheel(repository, work, out, CORE_PARTS)}
    found["eval"] = build_wheel(repository / "core" / "eval", work, out)
    for file in sorted(repository.glob("plugins/*/pyproject.toml")):
        found[file.parent.name] = build_wheel(file.parent, work, out)
    return found


@pytest.fixture(scope="session")
def installed(wheels, tmp_path_factory) -> FreshVenv:
    """A fresh environment with the core and all bundled plugins installed from their wheels."""
    fresh = FreshVenv(tmp_path_factory.mktemp("fresh") / "venv")
    fresh.install(*wheels.values())
    return fresh
