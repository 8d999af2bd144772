"""Columns that grow part by part while a model predicts: plain arrays and bytes, no Python object for each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["GrowingColumn", "GrowingRunLengths", "RunLengths"]

_BLOCK = 1 << 16  # numbers; growing takes a new block and copies nothing


class GrowingColumn:
    """Rows of one shape and type.

    Args:
        row_shape: () for plain numbers. dtype: what rows are kept as.
    """

    def __init__(self, row_shape: tuple[int, ...] = (), dtype: type = np.float64) -> None:
        self.row_shape = row_shape
        self._block_rows = max(1, _BLOCK // max(1, int(np.prod(row_shape))))
        self._full: list[np.ndarray] = []
        self._open = np.empty((0, *row_shape), dtype)
        self._used = 0

    def __len__(self) -> int:
        return sum(map(len, self._full)) + self._used

    def __getstate__(self) -> dict:
        self.array()  # without the unused end of a block
        return self.__dict__

    def extend(self, rows: np.ndarray | Sequence) -> None:
        """Append rows (n, *row_shape)."""
        rows = np.asarray(rows, self._open.dtype)
        while len(rows):
            if self._used == len(self._open):
                self._full += [self._open] if self._used else []
                self._open = np.empty((self._block_rows, *self.row_shape), rows.dtype)
                self._used = 0
            count = min(len(rows), len(self._open) - self._used)
            self._open[self._used : self._used + count] = rows[:count]
            self._used += count
            rows = rows[count:]

    def array(self) -> np.ndarray:
        """(n, *row_shape), all rows; not a copy."""
        if self._full or self._used < len(self._open):
            self._open = np.concatenate([*self._full, self._open[: self._used]])
            self._full, self._used = [], len(self._open)
        return self._open


class RunLengths(Sequence):
    """n compressed run-length masks; a row is {"size": [h, w], "counts": bytes}, made when it is requested.

    Args:
        data: (B,) uint8, the counts of all masks. starts, lengths: (n,) int64, where in it a mask's lie.
        sizes: (n, 2) int, height and width.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sizes: np.ndarray) -> None:
        self.data = data
        self.starts = starts
        self.lengths = lengths
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int | slice | np.ndarray) -> dict | RunLengths:
        if isinstance(row, (slice, np.ndarray)):
            return RunLengths(self.data, self.starts[row], self.lengths[row], self.sizes[row])
        start = self.starts[row]  # raises IndexError, which ends an iteration
        counts = self.data[start : start + self.lengths[row]].tobytes()
        return {"size": self.sizes[row].tolist(), "counts": counts}


class GrowingRunLengths:
    """Compressed run-length masks, kept as one stretch of bytes."""

    def __init__(self) -> None:
        self._data = GrowingColumn((), np.uint8)
        self._lengths = GrowingColumn((), np.int64)
        self._sizes = GrowingColumn((2,), np.int32)

    def extend(self, masks: Iterable[dict]) -> None:
        """Append masks {"size": [h, w], "counts": bytes}."""
        masks = list(masks)
        self._data.extend(np.frombuffer(b"".join(mask["counts"] for mask in masks), np.uint8))
        self._lengths.extend([len(mask["counts"]) for mask in masks])
        self._sizes.extend(np.array([mask["size"] for mask in masks], np.int32).reshape(-1, 2))

    def array(self) -> RunLengths:
        lengths = self._lengths.array()
        return RunLengths(self._data.array(), np.cumsum(lengths) - lengths, lengths, self._sizes.array())
