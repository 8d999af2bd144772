"""Folders for results, checked before the work whose results go there."""

from __future__ import annotations

import os
from pathlib import Path

from vertebra.errors import RecipeError

__all__ = ["check_can_be_written"]


def check_can_be_written(folder: str | Path, files: tuple[str, ...] = (), folders: tuple[str, ...] = ()) -> Path:
    """Checks, without creating anything, that files can be written to a folder that may not exist yet.

    Args:
        files, folders: names inside it that will be written or replaced.
    Raises:
        RecipeError: it or a parent is not a folder or cannot be written, or a name inside is something else.
    """
    folder = Path(folder)
    nearest = folder
    while not nearest.exists() and not nearest.is_symlink() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise RecipeError(f"{nearest} is not a folder, so results cannot go to {folder}: choose another with --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RecipeError(f"{nearest} cannot be written (permissions): choose another folder with --output")
    for name in files:
        path = folder / name
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path} is not a file: move it, or choose another folder with --output")
    for name in folders:
        path = folder / name
        if path.exists() and not path.is_dir():
            raise RecipeError(f"{path} is not a folder: move it, or choose another with --output")
    return folder
