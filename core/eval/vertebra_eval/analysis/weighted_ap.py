"""Average precision when every image counts a whole number of times, for many such weightings at once.

A bootstrap resample draws images with replacement, so it is a weight per image; a permutation of two runs is weights
0 and 1. Matching never crosses images, so it is done once, and only the ranking is summed anew.

Precision falls between two hits, so its envelope needs only the ranks of hits: with W(j) the weight of all counted
detections down to hit j and P(j) that of the hits alone, precision there is P(j) / W(j) and recall P(j) / objects.
Definitions: https://cocodataset.org/#detection-eval, 101 recalls, without classes that have no objects.
Letters: D detections of one class, T thresholds, N images (or rows of weights), B weightings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vertebra_eval.coco.matches import Matches

__all__ = ["RECALLS", "Judged", "RankedClass", "mean_average_precision", "rank_classes"]

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recall thresholds of COCO, as pycocotools sets them."""
_CELLS = 4_000_000  # largest array of detections x weightings at a time, in elements


class RankedClass(NamedTuple):
    """One class: its detections, best first, and where its objects are.

    Args:
        number: the class.
        image: (D,) int64, row of weights.
        hit, ignored: (D, T) bool; no detection is both, and none is ignored at every threshold.
        truth_image: (G,) int64, row of truth weights of each object that counts.
    """

    number: int
    image: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    truth_image: np.ndarray


class Judged(NamedTuple):
    """D detections and G objects, and what became of them at T thresholds: what AP depends on.

    Args:
        image, category: (D,) int; score: (D,). match: (D, T) row of the matched object, -1 none.
        ignored: (D, T) bool, does not count. truth_image, truth_category: (G,) int; truth_ignored: (G,) bool.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    match: np.ndarray
    ignored: np.ndarray
    truth_image: np.ndarray
    truth_category: np.ndarray
    truth_ignored: np.ndarray

    @classmethod
    def of(cls, matches: Matches) -> Judged:
        """Of all sizes."""
        objects = matches.objects
        detections = matches.image, matches.category, matches.score, matches.match, matches.does_not_count
        return cls(*detections, objects.image, objects.category, matches.object_ignored)


def rank_classes(judged: Judged | Matches, tie: np.ndarray | None = None) -> list[RankedClass]:
    """Each class that has objects, its detections in COCO's order: by score, then by image, then as they were matched.

    Args:
        tie: (D,) int64 to order equal scores by, in place of the image.
    """
    judged = Judged.of(judged) if isinstance(judged, Matches) else judged
    image_order = judged.image if tie is None else tie
    order = np.lexsort((image_order, -judged.score, judged.category))  # stable; last key leads
    order = order[~judged.ignored[order].all(axis=1)]
    counted = np.flatnonzero(~judged.truth_ignored)
    ranked = []
    for number in np.unique(judged.truth_category[counted]):
        low, high = (np.searchsorted(judged.category[order], number, side=side) for side in ("left", "right"))
        rows = order[low:high]
        ignored = judged.ignored[rows]
        ranked.append(
            RankedClass(
                number=int(number),
                image=judged.image[rows],
                hit=(judged.match[rows] >= 0) & ~ignored,
                ignored=ignored,
                truth_image=judged.truth_image[counted[judged.truth_category[counted] == number]],
            )
        )
    return ranked


def mean_average_precision(
    ranked: list[RankedClass], weights: np.ndarray, truth_weights: np.ndarray | None = None
) -> np.ndarray:
    """AP of each threshold and weighting, mean over the classes that have objects.

    Args:
        weights: (N, B) integers at least 0, how often the detections of an image count.
        truth_weights: (N, B), how often its objects count; None: as its detections.

    Returns:
        (T, B) float64, NaN where no class has an object.
    """
    truth_weights = weights if truth_weights is None else truth_weights
    if not ranked:
        return np.full((0, weights.shape[1]), np.nan)
    total = np.zeros((ranked[0].hit.shape[1], weights.shape[1]))
    defined = np.zeros(weights.shape[1])
    for part in ranked:
        for columns in _slices(weights.shape[1], len(part.image)):
            value, exists = _class_average_precision(part, weights[:, columns], truth_weights[:, columns])
            total[:, columns] += value
            defined[columns] += exists
    with np.errstate(invalid="ignore"):
        return total / defined


def _slices(count: int, length: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(1, length))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _class_average_precision(
    part: RankedClass, weights: np.ndarray, truth_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AP (T, B) of one class, 0 where it has no object, and (B,) whether it has one."""
    objects = truth_weights[part.truth_image].sum(axis=0)  # (B,)
    result = np.zeros((part.hit.shape[1], len(objects)))
    any_hit = np.flatnonzero(part.hit.any(axis=1))
    if not len(any_hit):
        return result, objects > 0
    weighted = weights[part.image[: any_hit[-1] + 1]].astype(np.int32)  # (D', B), down to the last hit
    seen = np.cumsum(weighted, axis=0, dtype=np.int32)
    reached = _recalls_reached(int(objects.max()), objects)  # (G_max + 1, B)
    column = np.arange(len(objects))
    for t in range(part.hit.shape[1]):
        rows = np.flatnonzero(part.hit[:, t])
        if not len(rows):
            continue
        hits = np.cumsum(weighted[rows], axis=0, dtype=np.int32)  # (J, B)
        ignored = np.flatnonzero(part.ignored[: len(weighted), t])
        all_seen = seen[rows]
        if len(ignored):
            skipped = np.concatenate([np.zeros_like(seen[:1]), np.cumsum(weighted[ignored], axis=0, dtype=np.int32)])
            all_seen = all_seen - skipped[np.searchsorted(ignored, rows)]
        precision = hits / np.maximum(all_seen, 1)
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        steps = reached[hits, column]  # recalls that are reached by hit j
        steps[1:] -= steps[:-1].copy()
        result[t] = np.einsum("jb,jb->b", best, steps) / len(RECALLS)
    return result, objects > 0


def _recalls_reached(most: int, objects: np.ndarray) -> np.ndarray:
    """(most + 1, B) float64: recall thresholds that m hits out of `objects` reach; 0 where there is none."""
    recall = np.arange(most + 1)[:, None] / np.maximum(objects, 1)
    return np.searchsorted(RECALLS, recall, side="right") * (objects > 0).astype(np.float64)
