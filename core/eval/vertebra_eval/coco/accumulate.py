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
        q, s, reached = _read_off(hits, total, needed, ranked.scores, positions)
        precision[:, :, present, m] = q.reshape(-1, T, R).transpose(1, 2, 0)
        scores[:, :, present, m] = s.reshape(-1, T, R).transpose(1, 2, 0)
        recall[:, present, m] = reached.reshape(-1, T).T / num_truth[present]
    return CategoryCurves(precision, recall, scores)


def _needed(num_truth: int, recalls: np.ndarray) -> np.ndarray:
    """(R,) how many of `num_truth` objects have to be found for each recall."""
    return np.searchsorted(np.arange(num_truth + 1) / num_truth, recalls, side="left")


def _read_off(
    hits: np.ndarray, total: np.ndarray, needed: np.ndarray, all_scores: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision (C, R) and score (C, R) where each recall is first reached, 0 where it is not; objects found (C,).

    Args:
        hits: (S, C) bool. total: (S, C) int32 detections that count, up to each candidate. needed: (C, R).
    """
    num_hits = np.count_nonzero(hits, axis=0)  # (C,)
    reached = (needed <= num_hits[:, None]) & (len(all_scores) > 0)
    reached = np.logical_and.accumulate(reached, axis=1)  # as in pycocotools, nothing is read off after the first miss
    q, s = np.zeros(needed.shape), np.zeros(needed.shape)
    if reached.any():
        s[reached & (needed == 0)] = all_scores[0]  # a recall of 0 is reached by the first detection
    order = np.argsort(needed.sum(axis=0), kind="stable")  # of the recalls, which may be given in any
    setting, column = np.nonzero((reached & (num_hits > 0)[:, None])[:, order])
    column = order[column]
    if not len(setting):
        return q, s, num_hits
    where, candidate = np.divmod(np.flatnonzero(np.ascontiguousarray(hits.T)), len(hits))  # one setting after the other
    ends = np.cumsum(num_hits)
    starts = ends - num_hits
    number = np.arange(1, len(where) + 1) - np.repeat(starts, num_hits)  # objects found up to each hit
    precision = number / (total[candidate, where] + np.spacing(1))
    wanted = needed[setting, column]
    first = starts[setting] + np.maximum(wanted, 1) - 1  # the hit that reaches the recall
    q[setting, column] = _best_from(precision, first, setting, ends)
    falling = order[::-1]
    q[:, falling] = np.maximum.accumulate(q[:, falling], axis=1)
    late = wanted > 0
    s[setting[late], column[late]] = all_scores[positions[candidate[first[late]]]]
    return np.where(reached, q, 0), s, num_hits


def _best_from(precision: np.ndarray, first: np.ndarray, setting: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(K,) the largest from each place `first` on, up to the next one or to the end of its setting.

    Args:
        precision: (N,) one setting after the other. first, setting: (K,) ascending. ends: (C,) of the settings.
    """
    block = np.cumsum(np.diff(setting, prepend=setting[0]) > 0)
    slots = np.arange(len(first)) + block  # a cut stands between two blocks
    bounds = np.empty(len(first) + block[-1] + 1, np.int64)
    bounds[slots] = first
    last = np.append(np.flatnonzero(np.diff(block)), len(first) - 1)
    bounds[slots[last] + 1] = ends[setting[last]]
    return np.maximum.reduceat(np.append(precision, 0), bounds)[slots]
