"""A maker of fake installed distributions, and a clean slate of registries and switches for each test."""

import sys
import textwrap
from pathlib import Path

import pytest

from vertebra import plugins
from vertebra.registry import REGISTRIES


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch):
    """What a test registers, imports or switches is gone after it."""
    for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    modules = set(sys.modules)
    plugins.rescan()
    yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    for name in set(sys.modules) - modules:
        if name.startswith(("fake_", "vertebra.local_plugins.")):
            del sys.modules[name]
    plugins.rescan()


@pytest.fixture
def install(tmp_path, monkeypatch):
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
