"""Columns that grow part by part while a model predicts: plain arrays and bytes, no Python object for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vertebra_eval.masks import MaskColumn

__all__ = ["GrowingColumn", "GrowingRunLengths"]

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
        self._open: np.ndarray = np.empty((0, *row_shape), dtype)
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


class GrowingRunLengths:
    """Compressed run-length masks, kept as one stretch of bytes."""

    def __init__(self) -> None:
        self._data = GrowingColumn((), np.uint8)
        self._lengths = GrowingColumn((), np.int64)
        self._sizes = GrowingColumn((2,), np.int32)

    def extend(self, masks: MaskColumn) -> None:
        """Append the masks of a column of run lengths alone."""
        lengths = masks.ends - masks.starts
        whole = len(masks) and masks.starts[0] == 0 and masks.ends[-1] == len(masks.counts)
        compact = whole and (masks.starts[1:] == masks.ends[:-1]).all()
        places = (
            slice(None)
            if compact
            else np.concatenate(
                [np.arange(start, end) for start, end in zip(masks.starts, masks.ends, strict=True)]
                or [np.zeros(0, int)]
            )
        )
        self._data.extend(np.frombuffer(masks.counts, np.uint8)[places])
        self._lengths.extend(lengths)
        self._sizes.extend(masks.sizes)

    def array(self) -> MaskColumn:
        sizes = self._sizes.array().astype(np.int64)
        return MaskColumn.of_run_lengths(self._data.array().tobytes(), self._lengths.array(), sizes)
