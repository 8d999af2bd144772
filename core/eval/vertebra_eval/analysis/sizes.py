"""AP and recall by object size, out of COCO's result."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vertebra_eval.coco.result import CocoResult

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


def by_size(result: CocoResult) -> list[SizeRow]:
    """A row for each area range that was evaluated, all sizes first."""
    rows, at = [], result.iou_index(0.5)
    for column, name in enumerate(result.params.area_ranges):
        precision = result.precision[:, :, :, column, -1]
        rows.append(
            SizeRow(
                name,
                *result.params.area_ranges[name],
                objects=int(result.num_truth[:, column].sum()),
                ap=_mean(precision),
                ap50=None if at is None else _mean(precision[at]),
                ar=_mean(result.recall[:, :, column, -1]),
            )
        )
    return rows


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is defined (not -1)."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
