"""Which rows of a model's weights belong to which class, so that weights can follow classes by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ClassRows"]


class ClassRows(NamedTuple):
    """How the rows (dimension 0) of a tensor belong to classes: G equal groups, such as anchors or cells, each of
    `before` rows, then `width` rows for each class, then `after` rows.

    Returned by `Head.class_rows`. RetinaNet's class scores (A * K rows) are `ClassRows()`, scores with a background row
    at the end `ClassRows(after=1)`, four box numbers for each class `ClassRows(width=4)`, YOLO's A * (5 + K) rows
    `ClassRows(before=5)`.
    """

    before: int = 0
    width: int = 1
    after: int = 0

    def pairs(self, sizes: tuple[int, int], groups: int, numbers: Mapping[int, int]) -> Tensor | None:
        """(P, 2) int64 pairs of a row there and a row here that mean the same; None where the sizes do not fit.

        Args:
            sizes: number of rows, there and here.
            groups: G, the same there and here.
            numbers: the number of a class there to its number here.
        """
        fixed = self.before + self.after
        if any(size % groups or (size // groups - fixed) % self.width for size in sizes):
            return None
        steps = [size // groups for size in sizes]
        counts = [(step - fixed) // self.width for step in steps]
        if max(numbers, default=-1) >= counts[0] or max(numbers.values(), default=-1) >= counts[1]:
            return None
        firsts = [self.before + count * self.width for count in counts]
        same = [(row, row) for row in range(self.before)]
        same += [
            (self.before + old * self.width + part, self.before + new * self.width + part)
            for old, new in numbers.items()
            for part in range(self.width)
        ]
        same += [(firsts[0] + row, firsts[1] + row) for row in range(self.after)]
        group = torch.arange(groups)[:, None, None]  # (G, 1, 1)
        return (group * torch.tensor(steps) + torch.tensor(same, dtype=torch.int64).reshape(-1, 2)).reshape(-1, 2)
