"""Detections in the order in which they count, and their pairs with the objects of their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["RankedDetections", "pairs_of_images", "rank_detections", "runs_of", "stable_argsort"]

_DIGIT = 1 << 16


def stable_argsort(values: np.ndarray, upper: int) -> np.ndarray:
    """Order of integers in [0, upper), equal ones as they stand. By 16 bit digits, for which numpy has a radix sort."""
    order = np.argsort((values % _DIGIT).astype(np.uint16), kind="stable")
    while upper > _DIGIT:
        values, upper = values // _DIGIT, -(-upper // _DIGIT)
        order = order[np.argsort((values % _DIGIT).astype(np.uint16)[order], kind="stable")]
    return order


@dataclass
class RankedDetections:
    """n detections by category, in each the best score first; equal scores by image, then as they came.

    Args:
        rows: (n,) rows of the detection columns. category: (n,) ascending.
        key: (n,) a number below num_keys for each pair of category and image, ascending by category, then image.
        rank: (n,) int32, how many detections of the same key come before.
        by_key: (n,) positions in the columns above, key after key and in each by rank.
    """

    rows: np.ndarray
    category: np.ndarray
    key: np.ndarray
    num_keys: int
    rank: np.ndarray
    by_key: np.ndarray


def rank_detections(
    rows: np.ndarray,
    image: np.ndarray,
    scores: np.ndarray,
    num_images: int,
    limit: int,
    category: np.ndarray | None = None,
    num_categories: int = 1,
) -> RankedDetections:
    """Order detections, and drop those after the first `limit` of a category in an image.

    Args:
        rows: (n,) of the columns, in the order that decides between equal scores of one image.
        image, scores, category: the columns; without categories there is one.
    """
    rows = rows[stable_argsort(image[rows], num_images)]
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    if category is None:
        category = np.zeros(len(image), np.int64)
    rows = rows[stable_argsort(category[rows], num_categories)]
    num_keys = num_categories * num_images
    key = category[rows].astype(np.int64) * num_images + image[rows]
    by_key = stable_argsort(key, num_keys)
    starts, counts = runs_of(key[by_key])
    rank = np.empty(len(rows), np.int32)
    rank[by_key] = np.arange(len(rows)) - np.repeat(starts, counts)
    if len(counts) and counts.max() > limit:
        keep = rank < limit
        by_key = (np.cumsum(keep) - 1)[by_key[keep[by_key]]]
        rows, key, rank = rows[keep], key[keep], rank[keep]
    return RankedDetections(rows, category[rows], key, num_keys, rank, by_key)


def pairs_of_images(
    ranked: RankedDetections, truth_keys: np.ndarray, at_once: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every detection with every object of its category and image, about `at_once` pairs at a time.

    Args:
        truth_keys: (G,) of the objects, ascending.
    Yields:
        (P,) positions in `ranked`, (P,) positions in `truth_keys`; all objects for one detection after the other.
    """
    grouped = ranked.key[ranked.by_key]
    first = np.searchsorted(truth_keys, grouped, side="left")
    count = np.searchsorted(truth_keys, grouped, side="right") - first
    have = np.flatnonzero(count)
    first, count, positions = first[have], count[have], ranked.by_key[have]
    total = np.cumsum(count)
    start = 0
    while start < len(have):
        done = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + at_once, side="right")))
        counts = count[start:end]
        within = np.arange(counts.sum()) - np.repeat(total[start:end] - counts - done, counts)
        yield np.repeat(positions[start:end], counts), np.repeat(first[start:end], counts) + within
        start = end


def runs_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the runs of equal neighbors."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return starts, np.diff(starts, append=len(values))
