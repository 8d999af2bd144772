"""COCO's greedy matching, for all images, categories, IoU thresholds and area ranges at once.

In an image and category, detections choose in the order of their scores. A detection takes, among the objects that
overlap it by at least the threshold and are still free (a crowd always is), the one with the largest overlap; the later
one where overlaps are equal; an ignored object only where no other is left. Sources: https://cocodataset.org, section
"Detection Evaluation", and the behavior of pycocotools 2.0.11.

Only detections with an overlap of at least the lowest threshold choose at all: the candidates. Round r lets the r-th
candidate of every image and category choose, in one go: two candidates of one round never want the same object.
Letters: S candidates, P pairs, C = A x T settings (area range, then threshold), G objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.coco.params import HIGHEST_THRESHOLD

__all__ = ["Candidates", "match_candidates"]

UNMATCHED = -1
_AT_A_TIME = 4096  # candidates


@dataclass
class Candidates:
    """S detections that may match an object, and which: P pairs.

    Args:
        turn: (S,) int, how many candidates of the same image and category choose earlier.
        detection: (P,) int in [0, S). truth: (P,) int in [0, G), in an order in which the later object wins where
            overlaps are equal. overlap: (P,) float64.
            The pairs of one detection may be in any order.
    """

    turn: np.ndarray
    detection: np.ndarray
    truth: np.ndarray
    overlap: np.ndarray


def match_candidates(
    candidates: Candidates, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """(S, C) int32: number of the object that each candidate takes in each setting, or -1.

    Args:
        thresholds: (T,). ignored: (A, G) bool, objects that do not count in an area range. crowd: (G,) bool.
    """
    num_areas, num_truth = ignored.shape
    num_settings = num_areas * len(thresholds)
    matched = np.full((len(candidates.turn), num_settings), UNMATCHED, dtype=np.int32)
    if not len(candidates.detection):
        return matched
    thresholds = np.minimum(thresholds, HIGHEST_THRESHOLD)
    by_turn = np.argsort(candidates.turn, kind="stable")  # candidates in the order of the rounds
    place = np.empty_like(by_turn)
    place[by_turn] = np.arange(len(by_turn))
    order = np.lexsort((candidates.truth, candidates.overlap, place[candidates.detection]))
    truth, overlap = candidates.truth[order], candidates.overlap[order]
    counts = np.bincount(place[candidates.detection], minlength=len(by_turn))
    ends = np.cumsum(counts)
    starts = ends - counts
    # within a candidate the best choice is last, and objects that count come before all ignored ones
    preference = (np.arange(len(order)) - np.repeat(starts, counts)).astype(np.int32)
    bonus = np.int32(counts.max())
    counting = np.where(ignored.T, np.int32(0), bonus)  # (G, A)
    taken = np.zeros((num_truth, num_settings), dtype=bool)
    for first, last in _rounds(np.bincount(candidates.turn)):
        pairs = slice(starts[first], ends[last - 1])
        objects = truth[pairs]  # (P_r,)
        meets = overlap[pairs, None] >= thresholds  # (P_r, T)
        free = ~taken[objects]  # (P_r, C)
        free |= crowd[objects, None]
        free = free.reshape(len(objects), num_areas, -1) & meets[:, None]
        worth = counting[objects] + preference[pairs, None]  # (P_r, A)
        worth = np.where(free, worth[:, :, None], np.int32(UNMATCHED)).reshape(len(objects), num_settings)
        best = np.maximum.reduceat(worth, starts[first:last] - starts[first], axis=0)  # (candidates of the round, C)
        rows, settings = np.nonzero(best != UNMATCHED)
        choice = best[rows, settings]
        choice -= np.where(choice >= bonus, bonus, 0).astype(np.int32)
        chosen = truth[starts[first + rows] + choice]
        matched[by_turn[first + rows], settings] = chosen
        taken[chosen, settings] = True
    return matched


def _rounds(sizes: np.ndarray) -> list[tuple[int, int]]:
    """From which to which candidate each round goes, large rounds in pieces that fit a processor's cache."""
    ends = np.cumsum(sizes)
    pieces = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    return [(at, min(at + _AT_A_TIME, end)) for start, end in pieces for at in range(start, end, _AT_A_TIME)]
