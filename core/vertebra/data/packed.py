"""Dataset dicts packed into one buffer, so that loader workers share them instead of copying them.

A Python list of dicts is copied page by page into every forked worker, because reading an object writes its
reference count. Here each dict is pickled once, all into one numpy array that holds no Python objects: forked
workers share its pages, spawned ones map the same temporary file. Only bytes that this process packed are unpickled.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PackedDicts"]


class PackedDicts(Sequence):
    """A read-only sequence of dicts. Each access gives a fresh dict: changing it changes nothing stored."""

    def __init__(self, dicts: Iterable[dict]) -> None:
        pieces = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in dicts]
        self._ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)  # (number of dicts,)
        self._bytes = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        self._file: Path | None = None

    @property
    def nbytes(self) -> int:
        """Size of the buffer in bytes."""
        return self._bytes.nbytes

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} dicts, index {index} is out of range")
        index %= len(self)
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].data)

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict:
        """For a spawned worker: the offsets and the path of the mapped file, not the bytes."""
        if self._file is None and len(self._bytes):
            folder = Path(tempfile.mkdtemp(prefix="vertebra-"))  # readable by this user alone
            weakref.finalize(self, _remove_folder, str(folder), os.getpid())
            self._bytes.tofile(folder / "dicts")
            self._file = folder / "dicts"
        return {"ends": self._ends, "file": self._file}

    def __setstate__(self, state: dict) -> None:
        self._ends, self._file = state["ends"], state["file"]
        self._bytes = np.empty(0, np.uint8) if self._file is None else np.memmap(self._file, dtype=np.uint8, mode="r")


def _remove_folder(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker inherits the finalizer, but not the file
        shutil.rmtree(folder, ignore_errors=True)
