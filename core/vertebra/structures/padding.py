"""Ragged per-image rows as one padded tensor with a mask of what is real."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vertebra.structures.boxes import Boxes

__all__ = ["pad_boxes", "pad_rows"]


def pad_rows(rows: Sequence[Tensor], *, value: float = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of N images as one tensor.

    Args:
        rows: per image (m_i, ...), the same trailing shape, type and device.
        value: what the padding is filled with.
        length: M; None: the most rows of any image. A fixed one saves a compiled model from recompiling.
    Returns:
        (N, M, ...) and (N, M) bool, true where a row is real.
    """
    if len(rows) == 0:
        raise ValueError("pad_rows needs the rows of at least one image, got none")
    counts = [len(row) for row in rows]
    longest = max(counts)
    if length is None:
        length = longest
    elif longest > length:
        raise ValueError(f"pad_rows: an image has {longest} rows, more than length={length}")
    padded = rows[0].new_full((len(rows), length, *rows[0].shape[1:]), value)
    for row, slot in zip(rows, padded, strict=True):
        slot[: len(row)] = row
    positions = torch.arange(length, device=padded.device)
    return padded, positions < torch.tensor(counts, device=padded.device)[:, None]


def pad_boxes(boxes: Sequence[Boxes | Tensor], *, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Boxes of N images, each (m_i, 4), as (N, M, 4) float32 with zeros behind, and (N, M) bool: true where real."""
    return pad_rows([b.tensor if isinstance(b, Boxes) else b.float().reshape(-1, 4) for b in boxes], length=length)
