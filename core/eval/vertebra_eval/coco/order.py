"""Detections of one category in the order in which they count, and their pairs with the objects of their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["RankedDetections", "pairs_of_images", "rank_detections", "stable_argsort"]

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
    """n detections of one category, best score first; equal scores by image, then as they came.

    Args:
        rows: (n,) rows of the detection columns. scores: (n,) descending. image: (n,).
        rank: (n,) how many detections of the same image come before.
        by_image: (n,) positions in the columns above, image after image and in each by rank.
    """

    rows: np.ndarray
    scores: np.ndarray
    image: np.ndarray
    rank: np.ndarray
    by_image: np.ndarray


def rank_detections(
    rows: np.ndarray, image: np.ndarray, scores: np.ndarray, num_images: int, limit: int
) -> RankedDetections:
    """Order detections, and drop those after the first `limit` of an image.

    Args:
        rows: (n,) of the detection columns, in the order that decides between equal scores of one image.
        image, scores: (n,) of these rows.
    """
    order = stable_argsort(image, num_images)
    order = order[np.argsort(-scores[order], kind="stable")]
    image = image[order]
    by_image = stable_argsort(image, num_images)
    grouped = image[by_image]
    starts, counts = _runs(grouped)
    rank_grouped = np.arange(len(grouped)) - np.repeat(starts, counts)
    rank = np.empty(len(grouped), dtype=np.int32)
    rank[by_image] = rank_grouped
    if len(counts) and counts.max() > limit:
        keep = rank < limit
        position = np.cumsum(keep) - 1
        by_image = position[by_image[rank_grouped < limit]]
        order, image, rank = order[keep], image[keep], rank[keep]
    return RankedDetections(rows[order], scores[order], image, rank, by_image)


def pairs_of_images(
    ranked: RankedDetections, truth_image: np.ndarray, at_once: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every detection with every object of its image, about `at_once` pairs at a time.

    Args:
        truth_image: (g,) images of the category's objects, ascending.
    Yields:
        (P,) positions in `ranked`, (P,) positions in `truth_image`; all objects for one detection after the other.
    """
    grouped = ranked.image[ranked.by_image]
    first = np.searchsorted(truth_image, grouped, side="left")
    count = np.searchsorted(truth_image, grouped, side="right") - first
    have = np.flatnonzero(count)
    first, count, positions = first[have], count[have], ranked.by_image[have]
    total = np.cumsum(count)
    start = 0
    while start < len(have):
        done = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + at_once, side="right")))
        counts = count[start:end]
        within = np.arange(counts.sum()) - np.repeat(total[start:end] - counts - done, counts)
        yield np.repeat(positions[start:end], counts), np.repeat(first[start:end], counts) + within
        start = end


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the runs of equal neighbors."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return starts, np.diff(starts, append=len(values))
