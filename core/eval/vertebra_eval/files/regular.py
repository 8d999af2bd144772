"""Files that a user named, opened only if they are files: a pipe would be waited on for ever, a device has no end."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_regular", "open_regular", "read_bytes", "read_text"]


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """The file, open for reading bytes.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device; `strerror` says which.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as err:
        raise OSError(errno.EINVAL, "its name contains a NUL byte", str(path)) from err
    try:
        _refuse(os.fstat(handle).st_mode, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike) -> None:
    """For files that a library opens by name.

    Raises:
        OSError: there is no such file, or as `open_regular`.
    """
    try:
        _refuse(os.stat(path).st_mode, path)
    except ValueError as err:
        raise OSError(errno.EINVAL, "its name contains a NUL byte", str(path)) from err


def read_bytes(path: str | os.PathLike) -> bytes:
    """Like `Path.read_bytes`, with the errors of `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Like `Path.read_text`, in UTF-8 unless told otherwise, with the errors of `open_regular`."""
    with io.TextIOWrapper(open_regular(path), encoding=encoding, errors=errors) as file:
        return file.read()


def _refuse(mode: int, path: str | os.PathLike) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(Path(path)))
    raise OSError(errno.EINVAL, "it is a pipe or device, not a file", str(Path(path)))
