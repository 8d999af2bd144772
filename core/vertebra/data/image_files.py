"""File names in annotation files to paths: none may leave the image folder, and those not on disk are found fast."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["Folders", "file_name_fault", "path_fault"]


def file_name_fault(name: Any) -> str | None:
    """Why a `file_name` out of an annotation file may not be joined to the image folder, or None.

    A name is relative, with forward slashes, and stays inside the folder; links inside the folder are the user's own.
    """
    fault = path_fault(name, expected="the name of a file below the image folder")
    if fault:
        return fault
    if name.startswith(("/", "\\", "~")) or name[1:3] in (":/", ":\\"):
        return f"file_name {name!r} is an absolute path; write it relative to the image folder"
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return f"file_name {name!r} leaves the image folder"
    return None


def path_fault(path: Any, key: str = "file_name", expected: str = "the path of a file as text") -> str | None:
    """Why the value of `key` cannot be the path of a file on disk, or None."""
    if not isinstance(path, str) or not path:
        return f"{key} is {path!r}, expected {expected}"
    if "://" in path:
        return f"{key} {path!r} is a URL; images are read from disk only, download it first"
    return f"{key} holds a zero byte" if "\0" in path else None


class Folders:
    """Says of many paths whether there is such a file. Each folder is listed once, no file is opened."""

    def __init__(self) -> None:
        self._listed: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._listed:
            self._listed[folder] = _names_in(Path(folder))
        return name in self._listed[folder]


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:  # no such folder: then nothing in it is there
        return set()
