"""Plugins that are one Python file, named by `plugins: [./my_head.py]` in a recipe or by `--plugin my_head.py`.

Such a file is imported as the module `vertebra.plugins.local_files.<stem>_<hash of its path>`; its decorators register.
Its path is kept in VERTEBRA_LOCAL_PLUGINS, so that processes started later (spawned workers, other ranks) find the
module when they unpickle one of its classes or look for one of its components.

A file that was edited since is imported anew when it is named again; a copy of a file that is imported already, as
every run's folder holds one, stands for that file.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from vertebra.errors import PluginError
from vertebra.plugins.discovery import ALLOW, switched_off
from vertebra.plugins.isolation import import_plugin_module
from vertebra_eval.files import read_bytes
from vertebra_eval.nearest import nearest

__all__ = [
    "ANNOUNCED",
    "WHEN_FORGOTTEN",
    "WHEN_NAMED",
    "file_hash",
    "is_local_module",
    "load_announced",
    "load_local_plugin",
    "loading_module",
]

ANNOUNCED = "VERTEBRA_LOCAL_PLUGINS"
__path__: list[str] = []  # makes this module a package to the import system: its submodules come from the finder below
WHEN_FORGOTTEN: list[Callable[[str], None]] = []  # called with the module's name; the registries stand here
WHEN_NAMED: list[Callable[[str], None]] = []  # the same, where a file is named that is imported as it stands
_loading: list[str] = []  # modules that are being imported, the innermost last
_HASH = "__sha256__"  # on each imported module: of the source that ran


def load_local_plugin(path: str | Path) -> ModuleType:
    """Imports a local plugin file, unless it is imported as it stands, and announces it to processes started later.

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
        raise PluginError(f"local plugin {path}: no such file.\n  Nearest: {', '.join(near) or 'none'}")
    if os.environ.get(ALLOW) is not None and switched_off("local"):
        raise PluginError(
            f"local plugin {path}: {ALLOW} is set and does not name `local`, which would allow local files"
        )
    if os.pathsep in str(path):
        raise PluginError(f"local plugin {path}: a {os.pathsep!r} in its path cannot be passed on to other processes")
    name = _module_name(path)
    try:
        digest = file_hash(path)
    except OSError as err:
        raise PluginError(f"local plugin {path} cannot be read: {err.strerror}") from err
    same = [module for key, module in _imported().items() if getattr(module, _HASH, None) == digest]
    if same:
        module = next((module for module in same if module.__name__ == name), same[0])
        for named in WHEN_NAMED:
            named(module.__name__)
        return module
    _forget(name)  # edited since it was imported
    announced = _announced()
    if path not in announced:
        _announce([*announced, path])
    try:
        return import_plugin_module(name, f"local plugin {path}")
    except BaseException:  # one that cannot be imported must not fail again wherever the announced ones are loaded
        _announce([file for file in announced if file != path])
        _forget(name)
        raise


def is_local_module(name: str) -> bool:
    """Whether a module is a local plugin file."""
    return name.startswith(f"{__name__}.")


def loading_module() -> str:
    """The local file that is being imported now, which also registers what modules of the user's do; or empty."""
    return _loading[-1] if _loading else ""


def load_announced() -> None:
    """Imports the announced files that this process has not imported yet."""
    for path in _announced():
        if _module_name(path) not in sys.modules:
            load_local_plugin(path)


def _forget(module: str) -> None:
    """As if the file had not been imported: nothing stays of an older version, or of the half before an error."""
    sys.modules.pop(module, None)
    for forget in WHEN_FORGOTTEN:
        forget(module)


def _announce(files: list[Path]) -> None:
    os.environ[ANNOUNCED] = os.pathsep.join(map(str, files))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _announced() -> list[Path]:
    return [Path(text) for text in os.environ.get(ANNOUNCED, "").split(os.pathsep) if text]


def _imported() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if is_local_module(name)}


def _module_name(path: Path) -> str:
    stem = re.sub(r"\W", "_", path.stem)
    return f"{__name__}.{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


class _Loader(SourceFileLoader):
    """Compiles the file as it stands, notes its hash, and leaves no `__pycache__` beside it."""

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        self.digest = hashlib.sha256(data).hexdigest()
        return self.source_to_code(data, self.path)

    def exec_module(self, module: ModuleType) -> None:
        _loading.append(module.__name__)
        try:
            super().exec_module(module)
        finally:
            _loading.pop()
        setattr(module, _HASH, self.digest)


class _Finder:
    """Finds `vertebra.plugins.local_files.*` among the announced files."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not is_local_module(name):
            return None
        file = next((file for file in _announced() if _module_name(file) == name), None)
        return None if file is None else spec_from_file_location(name, file, loader=_Loader(name, str(file)))


if not any(getattr(finder, "__module__", "") == __name__ for finder in sys.meta_path):
    sys.meta_path.append(_Finder)
