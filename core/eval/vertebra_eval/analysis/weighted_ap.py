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

__all__ = [
    "RECALLS",
    "Judged",
    "RankedClass",
    "class_average_precision",
    "mean_average_precision",
    "mean_of_classes",
    "pooled",
    "rank_classes",
    "recalls_reached",
]

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recall thresholds of COCO, as pycocotools sets them."""
_CELLS = 4_000_000  # largest array of detections x weightings at a time, in elements


class RankedClass(NamedTuple):
    """One class: its detections, best first, and where its objects are.

    Args:
        number: the class.
        image: (D,) int64, row of weights. score: (D,).
        hit, ignored: (D, T) bool; no detection is both, and none is ignored at every threshold.
        truth_image: (G,) int64, row of truth weights of each object that counts.
    """

    number: int
    image: np.ndarray
    score: np.ndarray
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
        """Of all sizes; where the categories were pooled, all are one class."""
        objects = matches.objects
        category, truth_category = matches.category, objects.category
        if matches.is_pooled:
            category, truth_category = np.zeros_like(category), np.zeros_like(truth_category)
        detections = matches.image, category, matches.score, matches.match, matches.does_not_count
        return cls(*detections, objects.image, truth_category, matches.object_ignored)


def rank_classes(judged: Judged, tie: np.ndarray | None = None) -> list[RankedClass]:
    """Each class that has objects, its detections in COCO's order: by score, then by image, then as they were matched.

    Args:
        tie: (D,) int64 to order equal scores by, in place of the image.
    """
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
                score=judged.score[rows],
                hit=(judged.match[rows] >= 0) & ~ignored,
                ignored=ignored,
                truth_image=judged.truth_image[counted[judged.truth_category[counted] == number]],
            )
        )
    return ranked


def pooled(one: Judged, other: Judged, num_images: int) -> list[RankedClass]:
    """The detections of both on the same objects in one ranking: rows of weights 0 to N - 1 are the first's images, N
    to 2N - 1 the other's."""
    both = {
        name: np.concatenate([getattr(one, name), getattr(other, name)])
        for name in ("category", "score", "match", "ignored")
    }
    image = np.concatenate([one.image, other.image + num_images])
    return rank_classes(one._replace(image=image, **both), np.concatenate([one.image, other.image]))


def class_average_precision(
    part: RankedClass, weights: np.ndarray, truth_weights: np.ndarray | None = None
) -> np.ndarray:
    """AP of a class at each threshold and weighting.

    Args:
        weights: (N, B) integers at least 0, how often the detections of an image count.
        truth_weights: (N, B), how often its objects count; None: as its detections.

    Returns:
        (T, B) float64, NaN where the class has no object.
    """
    truth_weights = weights if truth_weights is None else truth_weights
    result = np.empty((part.hit.shape[1], weights.shape[1]))
    for columns in _slices(weights.shape[1], len(part.image)):
        result[:, columns] = _average_precision(part, weights[:, columns], truth_weights[:, columns])
    return result


def mean_average_precision(ranked: list[RankedClass], weights: np.ndarray) -> np.ndarray:
    """(T, B) AP of each threshold and weighting, mean over the classes that have objects; NaN where none has."""
    if not ranked:
        return np.full((0, weights.shape[1]), np.nan)
    return mean_of_classes(np.array([class_average_precision(part, weights) for part in ranked]))


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """(C, ...) to (...): mean of those that are not NaN; NaN where there are none."""
    exist = ~np.isnan(values)
    count = exist.sum(axis=0)
    total = np.where(exist, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _slices(count: int, length: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(1, length))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _average_precision(part: RankedClass, weights: np.ndarray, truth_weights: np.ndarray) -> np.ndarray:
    objects = truth_weights[part.truth_image].sum(axis=0)  # (B,)
    result = np.where(objects > 0, 0.0, np.nan) + np.zeros((part.hit.shape[1], 1))
    any_hit = np.flatnonzero(part.hit.any(axis=1))
    if not len(any_hit):
        return result
    weighted = weights[part.image[: any_hit[-1] + 1]].astype(np.int32)  # (D', B), down to the last hit
    seen = np.cumsum(weighted, axis=0, dtype=np.int32)
    reached = recalls_reached(np.arange(objects.max() + 1)[:, None], objects)  # (G_max + 1, B)
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
        result[t] += np.einsum("jb,jb->b", best, steps) / len(RECALLS)
    return result


def recalls_reached(hits: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Number of recall thresholds that `hits` out of `objects` reach, float64; 0 where there are no objects."""
    return np.searchsorted(RECALLS, hits / np.maximum(objects, 1), side="right") * (objects > 0).astype(np.float64)
