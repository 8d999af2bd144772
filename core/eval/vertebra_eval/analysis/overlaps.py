"""Overlaps of detections with the objects of their image, of whatever class: what same-class matching does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vertebra_eval.coco.match_columns import MatchColumns
from vertebra_eval.coco.overlap import mask_overlaps

__all__ = ["Overlaps", "overlaps"]

_PAIRS = 2_000_000  # detections x objects at a time


class Overlaps(NamedTuple):
    """P pairs of a detection and an object of its image, image after image.

    Args:
        detection, truth: (P,) int64, rows of the columns.
        iou: (P,) float64; with an object that does not count, the share of the detection that lies inside it, as COCO
            has it for crowds.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


def overlaps(
    columns: MatchColumns,
    least: float,
    *,
    detection_masks: Sequence[dict] | None = None,
    truth_masks: Sequence[dict] | None = None,
) -> Overlaps:
    """All pairs with an IoU of at least `least` (above 0).

    Args:
        detection_masks, truth_masks: (D) and (G) compressed run lengths by row of the columns, to compare masks; None:
            boxes are compared.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    objects = np.argsort(columns.truth_image, kind="stable")
    images = np.arange(columns.num_images + 1)
    first = np.searchsorted(columns.truth_image[objects], images)  # (N + 1,), where an image's objects start
    counts = np.diff(first)[columns.detection_image]  # (D,) objects in the image of each detection
    ordered = np.argsort(columns.detection_image, kind="stable")
    for chunk in _chunks(counts[ordered]):
        rows = ordered[chunk]
        detection = np.repeat(rows, counts[rows])
        offset = np.arange(len(detection)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        truth = objects[first[columns.detection_image[detection]] + offset]
        if detection_masks is None:
            iou = _box_iou(columns, detection, truth)
        else:
            iou = mask_overlaps(
                detection_masks, truth_masks, columns.truth_ignored, columns.truth_image, detection, truth
            )
        keep = iou >= least
        found.append((detection[keep], truth[keep], iou[keep]))
    return Overlaps(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _chunks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in runs of at most `_PAIRS` pairs, or of one row."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _PAIRS, side="right")))
        yield np.arange(start, stop)
        start = stop


def _box_iou(columns: MatchColumns, detection: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(P,) IoU of boxes `xyxy`; 0 where a box has no area."""
    a, b = columns.detection_box[detection], columns.truth_box[truth]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    union = np.where(columns.truth_ignored[truth], area_a, area_a + area_b - common)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
