"""COCO's average precision from overlaps of any kind, for evaluators of rotated boxes, lines or boxes in space.

Letters: D detections, G ground-truth objects, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vertebra_eval.analysis.weighted_ap import RankedClass, class_average_precision
from vertebra_eval.coco.params import HIGHEST_THRESHOLD, CocoParams

__all__ = ["IOU_THRESHOLDS", "average_precision", "match_by_overlap"]

IOU_THRESHOLDS = tuple(CocoParams().iou_thresholds.tolist())


def match_by_overlap(
    overlap: Any, crowd: Any, thresholds: Sequence[float] = IOU_THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections of one image are right at each threshold, and which count neither as right nor as wrong.

    As in COCO, each detection takes the object that it overlaps most among those that no better one has taken. One that
    finds none is ignored where it overlaps a crowd enough.

    Args:
        overlap: (D, G) tensor or array, detections best first: the IoU, 0 for pairs of different classes, and in the
            column of a crowd the share of the detection that lies inside it.
        crowd: (G,) bool.
        thresholds: T least overlaps.

    Returns:
        right (T, D) bool, ignored (T, D) bool.
    """
    crowd = np.asarray(crowd, bool)
    least = np.minimum(np.asarray(thresholds), HIGHEST_THRESHOLD)
    columns = np.flatnonzero(~crowd)[::-1]  # of equal overlaps COCO takes the last
    values = np.asarray(overlap, np.float64)
    objects = np.pad(values[:, columns], ((0, 0), (0, 1)))  # with a column of zeros, so that a maximum always exists
    free = np.ones((len(least), objects.shape[1]), bool)
    right = np.zeros((len(least), len(objects)), bool)
    for number, row in enumerate(objects):
        best = np.where(free, row, 0).argmax(axis=1)  # (T,)
        right[:, number] = row[best] * free[np.arange(len(least)), best] >= least
        free[np.arange(len(least)), best] &= ~right[:, number]
    most = values[:, crowd].max(axis=1, initial=0)
    return right, ~right & (most >= least[:, None])


def average_precision(scores: Any, right: Any, ignored: Any, num_objects: int) -> np.ndarray:
    """The mean over 101 recalls of the best precision at this recall or a higher one, at each threshold: (T,).

    Args:
        scores: (D,) of the detections of one class in all images, in any order; of equal ones the earlier comes first.
        right, ignored: (T, D) bool, see `match_by_overlap`.
        num_objects: number of ground-truth objects of the class without crowds, at least 1.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    right, ignored = (np.asarray(one, bool)[:, order].T for one in (right, ignored))  # (D, T) each
    of_one_image = np.zeros(len(order), np.int64), np.asarray(scores, np.float64)[order]
    ranked = RankedClass(0, *of_one_image, right & ~ignored, ignored, np.zeros(num_objects, np.int64))
    return class_average_precision(ranked, np.ones((1, 1), np.int64))[:, 0]
