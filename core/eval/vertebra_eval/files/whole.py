"""Files that are there whole or not at all: written under another name, which is changed when all is in them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

__all__ = [
    "WholeFile",
    "free_path",
    "numbered_name",
    "open_whole",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
]


class WholeFile:
    """A file that is written over time. Whenever the process stops, `path` has its old content or the new; with
    `durable` also when the machine does.

    A link stays a link. What is there and is not a file (a terminal, a pipe) is written directly.

    Args:
        path: in a folder that exists.
        text: `file` takes text, written in UTF-8 with the line ends that it has; otherwise bytes.
        draft: the name until then, in the same folder; by default `.<name>.<number of the process>.tmp`.

    Attributes:
        file: open for writing.
    Raises:
        OSError: it cannot be written there; names `path`.
    """

    file: IO[Any]

    def __init__(self, path: str | os.PathLike, *, text: bool = False, draft: Path | None = None) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(self.path))
        beside = draft or self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
        self._draft = beside if self._target.is_file() or not self._target.exists() else self._target
        try:
            self.file = self._draft.open("w", encoding="utf-8", newline="") if text else self._draft.open("wb")
        except OSError as err:
            raise type(err)(err.errno, err.strerror, str(self.path)) from err

    def finish(self, *, durable: bool = False) -> None:
        """Gives the file its name. `durable`: after its content is on the disk, so that a power cut does no harm."""
        if self.file.closed:
            return
        if durable:
            self.file.flush()
            os.fsync(self.file.fileno())
        self.file.close()
        if self._draft == self._target:
            return
        with contextlib.suppress(OSError):
            shutil.copymode(self._target, self._draft)
        os.replace(self._draft, self._target)
        if durable:
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Leaves nothing of what was written."""
        with contextlib.suppress(OSError):  # closing writes what is left, to a disk that may be full
            self.file.close()
        if self._draft != self._target:
            self._draft.unlink(missing_ok=True)


@contextlib.contextmanager
def open_whole(
    path: str | os.PathLike, *, text: bool = False, durable: bool = False, draft: Path | None = None
) -> Iterator[IO[Any]]:
    """A `WholeFile`'s `file` for a block: finished at its end, discarded if that is an exception."""
    whole = WholeFile(path, text=text, draft=draft)
    try:
        yield whole.file
        whole.finish(durable=durable)
    except BaseException:
        whole.discard()
        raise


def write_bytes(path: str | os.PathLike, content: bytes, *, durable: bool = False) -> None:
    """Like `Path.write_bytes`, but whole or not at all."""
    with open_whole(path, durable=durable) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str, *, durable: bool = False) -> None:
    """Like `Path.write_text` in UTF-8, but whole or not at all."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """JSON to be read by people and programs: indented, without NaN and Infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill in a block, which becomes `path` at its end; nothing is left if that is an exception.

    Missing parents are made. An empty folder at `path` is replaced.
    """
    target = Path(path).absolute()
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    draft.mkdir(parents=True)
    try:
        yield draft
        if target.is_dir():  # Windows does not rename onto an empty one
            target.rmdir()
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def numbered_name(stem: str, number: int, suffix: str = "") -> str:
    """`a.png` is the first of its name; then come `a-2.png`, `a-3.png`, ..."""
    return f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"


def free_path(folder: Path, stem: str, suffix: str = "") -> Path:
    """The first `numbered_name` that nothing in the folder has."""
    paths = (folder / numbered_name(stem, number, suffix) for number in count(1))
    return next(path for path in paths if not os.path.lexists(path))


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut, where the system can do that (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
