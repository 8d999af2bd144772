"""Folders for results, checked before the work whose results go there."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from vertebra.errors import RecipeError
from vertebra_eval.files import numbered_name

__all__ = ["check_can_be_written", "drop_empty_folders", "drop_if_empty", "make_new", "new_folder", "numbered"]
__all__ += ["settle"]

_CLAIM = ".claimed"
"""A file in the first folder of a name until something else is there: no other process may take it as empty."""
_made: dict[Path, list[Path]] = {}
"""What `make_new` made in this process: the folders, each with the parents that were made for it, nearest first."""


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


def make_new(first: str | Path) -> Path:
    """Makes a folder: `first`, or `first-2`, `first-3`, ... after the highest number that is there.

    Processes that ask at the same time get one each. A folder in which nothing was written is removed when this process
    ends.

    Raises:
        RecipeError: as `check_can_be_written`.
    """
    first = check_can_be_written(first)
    parents = [parent for parent in first.parents if not parent.exists()]
    taken = numbered(first)
    number = max(taken, default=0)
    if taken.keys() == {1} and first.is_dir() and not any(first.iterdir()):
        number = 0
    while True:
        number += 1
        folder = first.with_name(numbered_name(first.name, number))
        with contextlib.suppress(FileExistsError):  # another process was sooner
            if number > 1 or not folder.is_dir():
                folder.mkdir(parents=True)
            if number == 1:  # an empty one may have been made beforehand, for this, so all have to claim it
                (folder / _CLAIM).open("x").close()
                if any(path.name != _CLAIM for path in folder.iterdir()):
                    (folder / _CLAIM).unlink()
                    continue
            _made[folder.absolute()] = [parent.absolute() for parent in parents]
            return folder


@contextlib.contextmanager
def new_folder(first: str | Path) -> Iterator[Path]:
    """`make_new` for results of a block; removed at its end if nothing was written."""
    folder = make_new(first)
    try:
        yield folder
    finally:
        drop_if_empty(folder)


def settle(folder: str | Path) -> None:
    """Takes back this process's claim of a folder that holds something else by now, which no other one takes."""
    with contextlib.suppress(OSError):
        if any(path.name != _CLAIM for path in Path(folder).iterdir()):
            (Path(folder) / _CLAIM).unlink(missing_ok=True)


def drop_if_empty(folder: str | Path) -> None:
    """Removes a folder that `make_new` made in this process, and the parents that it made for it, while empty."""
    folder = Path(folder).absolute()
    if folder in _made:
        (folder / _CLAIM).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or gone
        for path in [folder, *_made.pop(folder)] if folder in _made else ():
            path.rmdir()


def numbered(first: Path) -> dict[int, Path]:
    """{1: runs/x, 2: runs/x-2, ...}: those that exist."""
    pattern = re.compile(re.escape(first.name) + r"(?:-([1-9]\d{0,9}))?")
    if not first.parent.is_dir():
        return {}
    matches = ((pattern.fullmatch(path.name), path) for path in first.parent.iterdir())
    return {int(match[1] or 1): path for match, path in matches if match}


@atexit.register
def drop_empty_folders() -> None:
    """`drop_if_empty` of all that this process has made; done at its end, unless that is forced."""
    for folder in list(_made):
        drop_if_empty(folder)
