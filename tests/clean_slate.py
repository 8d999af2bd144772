"""What tests register, import or switch is gone after them."""

import sys
from collections.abc import Iterator

import pytest

from vertebra import plugins
from vertebra.plugins import local_files as local_plugins
from vertebra.registry import REGISTRIES


def kept_as_it_was() -> Iterator[None]:
    """What is registered, imported from fakes and local files, or switched meanwhile is gone afterward."""
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
            patch.setenv(variable, "")  # so that what is set meanwhile is undone
            patch.delenv(variable)
        plugins.rescan()
        yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    forget_local_plugins()
    for name in [name for name in set(sys.modules) - modules if name.startswith("fake_")]:
        del sys.modules[name]
    plugins.rescan()


def forget_local_plugins() -> None:
    """As in a process that is started now: no local file is imported, and none of its components is registered."""
    for name in [name for name in sys.modules if name.startswith("vertebra.plugins.local_files.")]:
        local_plugins._forget(name)
