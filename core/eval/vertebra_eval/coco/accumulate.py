"""From matches to precision, recall and scores of one category, as COCO interpolates them.

Precision at a recall is the best that is reached at this or any higher recall; both only change their course where an
object is found, so everything is computed there: at the candidates. Results equal pycocotools 2.0.11 to the last bit.
Letters: n detections of the category by falling score, S candidates among them, A area ranges, T IoU thresholds,
C = A x T settings, R recall thresholds, M limits on detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.coco.order import RankedDetections
from vertebra_eval.coco.params import CocoParams

__all__ = ["CategoryCurves", "CategoryMatches", "category_curves"]


@dataclass
class CategoryMatches:
    """What became of the candidates of one category.

    Args:
        positions: (S,) ascending, in the category's ranked detections.
        found: (S, A, T) bool, matched an object. ignored: (S, A, T) bool, matched an ignored object, or none and is
            outside the area range.
    """

    positions: np.ndarray
    found: np.ndarray
    ignored: np.ndarray


@dataclass
class CategoryCurves:
    """precision, scores: (T, R, A, M); recall: (T, A, M). -1 in area ranges without objects."""

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def category_curves(
    ranked: RankedDetections,
    outside: np.ndarray,
    matches: CategoryMatches,
    num_truth: np.ndarray,
    params: CocoParams,
) -> CategoryCurves:
    """Curves of one category.

    Args:
        outside: (A, n) bool, detections outside an area range. num_truth: (A,) int, objects that count.
    """
    num_areas, T = outside.shape[0], len(params.iou_thresholds)
    R, M = len(params.recall_thresholds), len(params.max_dets)
    precision, scores = -np.ones((T, R, num_areas, M)), -np.ones((T, R, num_areas, M))
    recall = -np.ones((T, num_areas, M))
    present = np.flatnonzero(num_truth)
    if not len(present):
        return CategoryCurves(precision, recall, scores)
    outside = outside[present]
    S, C = len(matches.positions), len(present) * T
    found = (matches.found & ~matches.ignored)[:, present].reshape(S, C)
    counts = ~matches.ignored[:, present].reshape(S, C)  # neither right nor wrong where ignored
    usual = ~outside[:, matches.positions].T  # (S, A') what counts if nothing was ever matched
    rank = ranked.rank[matches.positions]
    needed = np.concatenate([_needed(num_truth[a], params.recall_thresholds) for a in present]).reshape(-1, R)
    needed = np.repeat(needed, T, axis=0)  # (C, R) objects to be found for each recall
    for m, limit in enumerate(params.max_dets):
        wrong_so_far = np.cumsum(~outside & (ranked.rank < limit), axis=1, dtype=np.int32)  # (A', n) unmatched ones
        admitted = np.flatnonzero(rank < limit)  # the S' candidates among the first of their images
        positions, hits = matches.positions[admitted], found[admitted]  # (S', C)
        change = counts[admitted].view(np.int8) - np.repeat(usual[admitted].view(np.int8), T, axis=1)
        total = np.cumsum(change, axis=0, dtype=np.int32)
        total += np.repeat(wrong_so_far[:, positions].T, T, axis=1)
        hits_so_far = np.cumsum(hits, axis=0, dtype=np.int32)
        q, s, reached = _read_off(hits, hits_so_far, total, needed, ranked.scores, positions)
        precision[:, :, present, m] = q.reshape(-1, T, R).transpose(1, 2, 0)
        scores[:, :, present, m] = s.reshape(-1, T, R).transpose(1, 2, 0)
        recall[:, present, m] = reached.reshape(-1, T).T / num_truth[present]
    return CategoryCurves(precision, recall, scores)


def _needed(num_truth: int, recalls: np.ndarray) -> np.ndarray:
    """(R,) how many of `num_truth` objects have to be found for each recall."""
    return np.searchsorted(np.arange(num_truth + 1) / num_truth, recalls, side="left")


def _read_off(
    hits: np.ndarray,
    hits_so_far: np.ndarray,
    total: np.ndarray,
    needed: np.ndarray,
    all_scores: np.ndarray,
    positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision (C, R) and score (C, R) where each recall is first reached, 0 where it is not; objects found (C,)."""
    reached = needed <= (hits_so_far[-1:].T if len(hits) else 0)  # (C, R)
    reached &= len(all_scores) > 0
    reached = np.logical_and.accumulate(reached, axis=1)  # as in pycocotools, nothing is read off after the first miss
    q, s = np.zeros(needed.shape), np.zeros(needed.shape)
    at_once = reached & (needed == 0)  # a recall of 0 is reached by the first detection
    if at_once.any():
        s[at_once] = all_scores[0]
    if not len(hits):
        return q, s, np.zeros(len(needed), dtype=np.int64)
    precision = np.where(hits, hits_so_far / (total + np.spacing(1)), 0.0)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]  # at this or any later candidate
    q[at_once] = best[0][np.nonzero(at_once)[0]]
    _, candidate = np.nonzero(hits.T)  # the hits of one setting after the other
    num_hits = hits_so_far[-1].astype(np.int64)  # (C,)
    start = np.cumsum(num_hits) - num_hits
    setting, column = np.nonzero(reached & (needed > 0))
    where = candidate[start[setting] + needed[setting, column] - 1]
    q[setting, column] = best[where, setting]
    s[setting, column] = all_scores[positions[where]]
    return q, s, num_hits
