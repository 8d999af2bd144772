"""The local plugins of a run: copied into its folder, their hashes kept in its checkpoints.

runs/x/recipe.yaml names the copies (`plugins: [plugins/my_head.py]`), so that the folder alone reproduces the run, also
after my_head.py went on. A checkpoint holds hashes only: reading one runs no plugin, a recipe that names it does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertebra.errors import PluginError
from vertebra_eval.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = [
    "FOLDER",
    "PluginFile",
    "changes_since",
    "read_plugin_files",
    "recipe_with_copies",
    "save_plugin_files",
    "warn_of_changes",
]

logger = logging.getLogger(__name__)

FOLDER = "plugins"  # inside a run's folder


@dataclass(frozen=True)
class PluginFile:
    """A local plugin as it is now."""

    path: Path
    name: str  # of its copy: `my_head.py`, or `my_head-2.py` for the second file of that name
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def __str__(self) -> str:
        return f"local plugin {self.name} ({self.path}), sha256 {self.sha256}"


def read_plugin_files(paths: Sequence[str | Path]) -> list[PluginFile]:
    """The files of `Recipe.plugins`, each with the name that its copy gets."""
    found: list[PluginFile] = []
    for path in map(Path, paths):
        taken = {file.name for file in found}
        name, number = path.name, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        try:
            found.append(PluginFile(path, name, read_bytes(path)))
        except OSError as err:
            raise PluginError(f"local plugin {path} cannot be read: {err.strerror}") from err
    return found


def recipe_with_copies(recipe: Recipe, files: Sequence[PluginFile]) -> str:
    """The resolved recipe as a run's folder holds it: its local plugins are the copies beside it."""
    return replace(recipe, plugins=[f"{FOLDER}/{file.name}" for file in files]).to_yaml()


def save_plugin_files(folder: Path, files: Sequence[PluginFile], step: int) -> None:
    """Copies the files into a run's folder; a copy that differs is kept as my_head.until_step_N.py."""
    for file in files:
        copy = folder / FOLDER / file.name
        if copy.is_file():
            old = read_bytes(copy)
            if old == file.content:
                continue
            _write(copy.with_name(f"{copy.stem}.until_step_{step}{copy.suffix}"), old)
        copy.parent.mkdir(parents=True, exist_ok=True)
        _write(copy, file.content)


def changes_since(recorded: Mapping[str, Any], files: Sequence[PluginFile]) -> list[str]:
    """A sentence for each local plugin that is not as it was when a checkpoint was written.

    Args:
        recorded: {name: sha256} of the checkpoint; names are those of the copies.
    """
    return [
        f"{file.path} is not the {file.name} of the checkpoint: sha256 {file.sha256[:12]}, it was {old[:12]}"
        for file in files
        if isinstance(old := recorded.get(file.name), str) and old != file.sha256
    ]


def warn_of_changes(recipe: Recipe, source: str | Path) -> None:
    """Logs a warning where a recipe's local plugins are not those that the weights in `source` were trained with."""
    if not recipe.plugins or Path(source).suffix not in (".pth", ".pt"):
        return
    from vertebra.models import read_checkpoint  # a layer below; only a recipe with local plugins needs it

    recorded = read_checkpoint(source).get("plugins")
    if isinstance(recorded, dict):
        for change in changes_since(recorded, read_plugin_files(recipe.plugins)):
            logger.warning(
                "%s: local plugin %s.\n  The weights may mean something else to it; "
                "the file they were trained with lies in the run's folder %s/",
                source,
                change,
                FOLDER,
            )


def _write(path: Path, content: bytes) -> None:
    write_bytes(path, content, durable=True)
