"""Plugins that are one Python file, named by `plugins: [./my_head.py]` in a recipe or announced by the environment.

Such a file is imported as the module `vertebra.local_plugins.<stem>_<hash of its path>`; its decorators register.
Its path is kept in VERTEBRA_LOCAL_PLUGINS, so that processes started later (spawned workers, other ranks) find the
module when they unpickle one of its classes or look for one of its components.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from vertebra.errors import PluginError
from vertebra.nearest import nearest
from vertebra.plugins import ALLOW, import_plugin_module, switched_off

__all__ = ["ANNOUNCED", "file_hash", "load_announced", "load_local_plugin"]

ANNOUNCED = "VERTEBRA_LOCAL_PLUGINS"
__path__: list[str] = []  # makes this module a package to the import system: its submodules come from the finder below


def load_local_plugin(path: str | Path) -> ModuleType:
    """Imports a local plugin file, once per process, and announces it to processes started later.

    Raises:
        PluginError: there is no such file, it is not allowed here, or it cannot be imported; names the file.
    """
    path = Path(path).expanduser().resolve()
    if path.suffix != ".py":
        raise PluginError(
            f"local plugin {path}: expected a Python file (*.py).\n"
            "  An installed plugin needs no line in `plugins`: name its components, and it is loaded"
        )
    if not path.is_file():
        near = nearest(path.name, (file.name for file in path.parent.glob("*.py")))
        raise PluginError(f"local plugin {path}: there is no such file.\n  Nearest: {', '.join(near) or 'none'}")
    if os.environ.get(ALLOW) is not None and switched_off("local"):
        raise PluginError(f"local plugin {path}: {ALLOW} is set and does not name `local`")
    announced = _announced()
    if path not in announced:
        os.environ[ANNOUNCED] = os.pathsep.join(map(str, [*announced, path]))
    return import_plugin_module(_module_name(path), f"local plugin {path}")  # type: ignore[return-value]


def load_announced() -> None:
    """Imports the announced files that this process has not imported yet."""
    for path in _announced():
        if _module_name(path) not in sys.modules:
            load_local_plugin(path)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _announced() -> list[Path]:
    return [Path(text) for text in os.environ.get(ANNOUNCED, "").split(os.pathsep) if text]


def _module_name(path: Path) -> str:
    stem = re.sub(r"\W", "_", path.stem)
    return f"{__name__}.{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


class _Finder:
    """Finds `vertebra.local_plugins.*` among the announced files."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        file = next((file for file in _announced() if _module_name(file) == name), None)
        return None if file is None else spec_from_file_location(name, file)


if not any(getattr(finder, "__module__", "") == __name__ for finder in sys.meta_path):
    sys.meta_path.append(_Finder)
