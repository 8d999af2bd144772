"""File names in annotation files to paths: none may leave the image folder, and those not on disk are found fast."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

__all__ = ["IMAGE_SUFFIXES", "file_name_fault", "missing_files"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def file_name_fault(name: object) -> str | None:
    """Why a `file_name` out of an annotation file may not be joined to the image folder, or None.

    A name is relative, with forward slashes, and stays inside the folder; links inside the folder are the user's own.
    """
    if not isinstance(name, str) or not name:
        return f"file_name is {name!r}, expected the name of a file below the image folder"
    if "://" in name:
        return f"file_name {name!r} is a URL; images are read from disk only, download it first"
    if "\0" in name:
        return "file_name holds a zero byte"
    if name.startswith(("/", "\\", "~")) or name[1:3] in (":/", ":\\"):
        return f"file_name {name!r} is an absolute path; write it relative to the image folder"
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return f"file_name {name!r} leaves the image folder"
    return None


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the paths that are not there, in order. Each folder is listed once, no file is opened."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _names_in(Path(folder))
        if name not in listed[folder]:
            missing.append(path)
    return missing


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:  # no such folder: then nothing in it is there
        return set()
