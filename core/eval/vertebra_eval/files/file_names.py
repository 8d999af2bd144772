"""File names in annotation files to paths: none may leave the image folder, and those not on disk are found fast."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["Folders", "file_name_fault", "near_file", "path_fault"]


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
    if "\0" in path:
        return f"{key} holds a zero byte"
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return f"{key} {path!r} holds half of a surrogate pair, which no file name has"
    return None


class Folders:
    """Says of many paths whether there is such a file. Each folder is listed once, no file is opened."""

    def __init__(self) -> None:
        self._listed: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self._names(folder)

    def near(self, path: str) -> str | None:
        """The file that is meant by a path without one, or None.

        It differs in capital letters, in how accents are written (NFC, NFD), in `\\` for `/`, in `%20` for a space or
        the other way round, in a folder that the path names twice, or in one that it names and that is not there.
        """
        folder, name = os.path.split(path)
        parts = path.split("/")
        once = [part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
        written = (
            path,
            path.replace("\\", "/"),
            unquote(path),
            os.path.join(folder, quote(name, errors="replace")),
            "/".join(once),
        )
        shorter = os.path.join(os.path.dirname(folder), name)
        found = (self._loosely(other) for other in (*written, shorter))
        return next((other for other in found if other is not None and os.path.isfile(other)), None)

    def _loosely(self, path: str) -> str | None:
        """The path with each part as it is on disk, where that is told apart by case and accents alone."""
        start = path
        while start and not os.path.isdir(start) and os.path.dirname(start) != start:
            start = os.path.dirname(start)
        for part in os.path.relpath(path, start or ".").split("/"):
            names = self._names(start)
            alike = [part] if part in names else sorted(name for name in names if _folded(name) == _folded(part))
            if not alike:
                return None
            start = os.path.join(start, alike[0])
        return start

    def _names(self, folder: str) -> set[str]:
        if folder not in self._listed:
            self._listed[folder] = _names_in(Path(folder))
        return self._listed[folder]


def near_file(path: str | Path, folders: Folders | None = None) -> str:
    """The end of a message about a file that is not there: `; there is NAME` where one may be meant, else nothing."""
    near = (folders or Folders()).near(str(path))
    if near is None:
        return ""
    same_folder = os.path.dirname(near) == os.path.dirname(str(path))
    return f"; there is {os.path.basename(near) if same_folder else near}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:  # no such folder: then nothing in it is there
        return set()
