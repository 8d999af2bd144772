"""Finds a module's source file without importing it or any package above it.

The import system's own finders are asked, level by level, with the folders that the level above was found in; so
editable installs, whose finders stand on `sys.meta_path`, work too. A package that changes its `__path__` while it is
imported is not followed.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

from vertebra._deprecation import MOVED

__all__ = ["RECIPE_SUFFIXES", "locate_module", "locate_package", "recipes_in"]

RECIPE_SUFFIXES = (".yaml", ".yml")


def locate_module(name: str) -> Path | None:
    """The source file of `package.module` (a package's is its `__init__.py`), or None."""
    package, _, rest = name.partition(".")
    if package == "vertebra" and rest in MOVED:
        name = f"vertebra.{MOVED[rest].new}"
    spec = _find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def locate_package(name: str) -> Path | None:
    """The folder of a package, or None. A namespace package in several places gives the first."""
    spec = _find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        return None
    return next((folder for folder in map(Path, spec.submodule_search_locations) if folder.is_dir()), None)


def recipes_in(package: str) -> list[str]:
    """Names of the YAML files in a package's folder, as they follow the colon in `plugin:recipe`; sorted."""
    folder = locate_package(package)
    if folder is None:
        return []
    files = [file for suffix in RECIPE_SUFFIXES for file in folder.rglob(f"*{suffix}")]
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files)


def _find_spec(name: str) -> ModuleSpec | None:
    spec, folders, done = None, None, []
    for part in name.split("."):
        done.append(part)
        spec = _ask_finders(".".join(done), folders) or _plain_folder(".".join(done), part, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return spec


def _plain_folder(name: str, part: str, folders: list[str] | None) -> ModuleSpec | None:
    """A folder without `__init__.py` inside a package: the path finder would need its parent to be imported."""
    inside = [str(Path(folder) / part) for folder in folders or () if (Path(folder) / part).is_dir()]
    if not inside:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = inside
    return spec


def _ask_finders(name: str, folders: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        try:
            spec = find(name, folders)
        except Exception:  # some other tool's finder is broken: ask the next, as this is only a look
            continue
        if spec is not None:
            return spec
    return None
