"""Forty installed distributions, ten of them broken, and a way to run the command line beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dummy_plugins import BROKEN, GOOD, LOUD, install
from tiny_local import RECIPE, SOURCE

from vertebra import plugins
from vertebra.registry import REGISTRIES


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder for sys.path with 40 distributions: 29 good ones, one that prints and warns, 10 broken ones."""
    site = tmp_path_factory.mktemp("forty") / "site-packages"
    for number in range(29):
        name = f"Good{number:02}"
        install(site, f"g-good{number:02}", GOOD.format(name=name, number=number), name, name)
    install(site, "g-loud", LOUD + GOOD.format(name="Loud", number=0), "Loud", "Loud")
    for number, (name, (source, _)) in enumerate(BROKEN.items()):
        requires = "vertebra>=99,<100" if name == "b-future" else "vertebra"
        install(site, name, source, f"Broken{number}", "Broken", requires)
    return site


@pytest.fixture
def vertebra(tmp_path):
    """vertebra("plugins", site=site): runs the command line in a process of its own, in tmp_path."""

    def run(*arguments: object, site: Path | None = None, code: int = 0, **variables: str):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VERTEBRA_")}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
        if site is not None:
            environment["PYTHONPATH"] = str(site)
        command = [sys.executable, "-m", "vertebra", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def clean_slate(monkeypatch):
    """What a test registers, imports or switches is gone after it."""
    for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
        monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(variable)
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    forget_local_plugins()
    plugins.rescan()


def forget_local_plugins() -> None:
    for name in [name for name in sys.modules if name.startswith("vertebra.local_plugins.")]:
        del sys.modules[name]


@pytest.fixture
def project(clean_slate, tmp_path, monkeypatch) -> Path:
    """A folder with my_head.py and recipe.yaml, as the current directory."""
    (tmp_path / "my_head.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path
