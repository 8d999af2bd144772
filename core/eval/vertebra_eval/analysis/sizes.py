"""AP and recall by object size, out of COCO's arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vertebra_eval.area_ranges import AREA_RANGES
from vertebra_eval.coco.curves import CocoArrays

__all__ = ["SizeRow", "by_size"]


class SizeRow(NamedTuple):
    """One area range: AP, AP50 and AR are fractions, None where no object counts."""

    name: str
    low: float  # square pixels
    high: float
    objects: int
    ap: float | None
    ap50: float | None
    ar: float | None


def by_size(arrays: CocoArrays) -> list[SizeRow]:
    """A row for each area range that was evaluated, all sizes first."""
    rows, at = [], arrays.iou_index(0.5)
    for column, name in enumerate(arrays.areas):
        precision = arrays.precision[:, :, :, column, -1]
        rows.append(
            SizeRow(
                name,
                *AREA_RANGES[name],
                objects=int(arrays.num_truth[:, column].sum()),
                ap=_mean(precision),
                ap50=None if at is None else _mean(precision[at]),
                ar=_mean(arrays.recall[:, :, column, -1]),
            )
        )
    return rows


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is defined (not -1)."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
