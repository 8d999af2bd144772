"""Fake installed distributions, forty at once or one at a time, and a clean slate of registries and switches."""

import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dummy_plugins import BROKEN, GOOD, LOUD, install
from tiny_local import RECIPE, SOURCE

from clean_slate import kept_as_it_was
from vertebra import plugins


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
def clean_slate():
    """What a test registers, imports or switches is gone after it."""
    yield from kept_as_it_was()


@pytest.fixture(scope="module")
def clean_slate_per_file():
    """The same for all tests of a file together: a conformance class loads its recipe once, and its local file."""
    yield from kept_as_it_was()


@pytest.fixture
def project(clean_slate, tmp_path, monkeypatch) -> Path:
    """A folder with my_head.py and recipe.yaml, as the current directory."""
    (tmp_path / "my_head.py").write_text(SOURCE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(name="install")
def install_one(clean_slate, tmp_path, monkeypatch):
    """install("name", groups={"vertebra.heads": {"X": "fake_x:X"}}, files={"fake_x.py": "..."}): as pip leaves it."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name: str, groups: dict, files: dict | None = None, version: str = "1.0", requires: tuple = ()) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
        (info / "METADATA").write_text("\n".join(lines) + "\n\nA plugin.\n")
        sections = [
            "\n".join([f"[{group}]", *(f"{k} = {v}" for k, v in lines.items())]) for group, lines in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
        for file, text in (files or {}).items():
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        plugins.rescan()
        return site

    return make
