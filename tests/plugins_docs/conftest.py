"""After each test: what it registered, imported from local files or switched is gone."""

import sys

import pytest

from vertebra import plugins
from vertebra.registry import REGISTRIES


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch):
    for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
        monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(variable)
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    for name in [name for name in sys.modules if name.startswith("vertebra.local_plugins.")]:
        del sys.modules[name]
    plugins.rescan()
