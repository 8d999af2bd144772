"""Forty installed distributions, ten of them broken, and a way to run the command line beside them."""

import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dummy_plugins import BROKEN, GOOD, LOUD, install
from tiny_local import RECIPE, SOURCE, forget_local_plugins

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
def vertebra(command_line, tmp_path):
    """vertebra("plugins", site=site): runs the command line in tmp_path."""
    return partial(command_line, cwd=tmp_path)


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


@pytest.fixture
def project(clean_slate, tmp_path, monkeypatch) -> Path:
    """A folder with my_head.py and recipe.yaml, as the current directory."""
    (tmp_path / "my_head.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path
