"""After each file: what it registered, imported from local files or switched is gone."""

import sys

import pytest

from vertebra import plugins
from vertebra.registry import REGISTRIES


@pytest.fixture(autouse=True, scope="module")  # a conformance class loads its recipe once, and the local file with it
def clean_slate():
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
            patch.setenv(variable, "")  # so that what is set meanwhile is undone
            patch.delenv(variable)
        yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    for name in [name for name in sys.modules if name.startswith("vertebra.local_plugins.")]:
        del sys.modules[name]
    plugins.rescan()
