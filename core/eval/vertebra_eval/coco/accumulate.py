"""From matches to precision, recall and scores, as COCO interpolates them.

Precision at a recall is the best that is reached at this or any higher recall; both only change their course where an
object is found, so everything is computed there: at the candidates. Results equal pycocotools 2.0.11 to the last bit.
Letters: K categories, n detections by category and falling score, S candidates among them, H matches with an object, A
area ranges, T IoU thresholds, C = A x T settings, R recall thresholds, M limits on detections.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.params import CocoParams

__all__ = ["accumulate"]

_CANDIDATES, _CATEGORIES = 1 << 15, 128
"""Most of one step, unless a category alone has more: they bound its memory to some 10 MiB."""


def accumulate(
    matches: Matches, bounds: np.ndarray, num_truth: np.ndarray, params: CocoParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision (T, R, K, A, M), recall (T, K, A, M) and scores (T, R, K, A, M), -1 in area ranges without objects.

    Args:
        bounds: (K + 1,) where each category's detections begin and end. num_truth: (K, A) int, objects that count.
    """
    T, R, (K, A) = len(params.iou_thresholds), len(params.recall_thresholds), num_truth.shape
    precision, scores = (np.empty((T, R, K, A, len(params.max_dets))) for _ in range(2))
    recall = np.empty((T, K, A, len(params.max_dets)))
    for own in _steps(bounds, matches.candidate):
        step = _Step(matches, bounds[own.start : own.stop + 1], num_truth[own], params)
        absent = np.repeat(num_truth[own].T == 0, T, axis=0).reshape(-1)  # (C x K,)
        for m, limit in enumerate(params.max_dets):
            q, s, found = step.curves(limit)
            q[absent] = s[absent] = -1
            precision[:, :, own, :, m] = q.reshape(A, T, -1, R).transpose(1, 3, 2, 0)
            scores[:, :, own, :, m] = s.reshape(A, T, -1, R).transpose(1, 3, 2, 0)
            recall[:, own, :, m] = found.reshape(A, T, -1).transpose(1, 2, 0) / np.maximum(num_truth[own], 1)
    recall[:, num_truth == 0] = -1
    return precision, recall, scores


def _steps(bounds: np.ndarray, candidate: np.ndarray) -> Iterator[slice]:
    """Categories that are done together."""
    ends = np.searchsorted(candidate, bounds)  # (K + 1,) candidates up to each category
    start, K = 0, len(bounds) - 1
    while start < K:
        end = int(np.searchsorted(ends, ends[start] + _CANDIDATES, side="right")) - 1
        end = min(max(end, start + 1), start + _CATEGORIES, K)
        yield slice(start, end)
        start = end


class _Step:
    """Some categories, with what all limits on detections have in common. K: those of the step."""

    def __init__(self, matches: Matches, bounds: np.ndarray, num_truth: np.ndarray, params: CocoParams) -> None:
        first, last = np.searchsorted(matches.candidate, bounds[[0, -1]]).tolist()
        met, ignored = matches.candidate_state(slice(first, last))
        self.settings = met.shape[1] * met.shape[2]
        self.thresholds = met.shape[2]
        self.starts = bounds[:-1] - bounds[0]  # (K,) each category's first detection
        self.positions = matches.candidate[first:last] - bounds[0]  # (S,)
        self.group = np.searchsorted(bounds, matches.candidate[first:last], side="right") - 1  # (S,)
        self.found = (met & ~ignored).reshape(-1, self.settings)
        self.counts = ~ignored.reshape(-1, self.settings)  # neither right nor wrong where ignored
        self.counting = ~matches.outside[:, bounds[0] : bounds[-1]]  # (A, n) what counts if nothing was ever matched
        self.rank = matches.rank[bounds[0] : bounds[-1]]
        rows = matches.detection[bounds[0] : bounds[-1]]
        self.scores = matches.detections.scores[rows[self.positions]]  # (S,)
        some = np.diff(bounds) > 0
        self.first_scores = np.zeros(len(num_truth))
        self.first_scores[some] = matches.detections.scores[rows[self.starts[some]]]
        self.recalls = params.recall_thresholds
        self.needed = _needed(num_truth, self.recalls)  # (A, K, R)

    def curves(self, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision and score (C x K, R) where each recall is first reached, 0 where it is not; objects found (C x K,).

        Only the first `limit` detections of an image take part.
        """
        K, T = len(self.starts), self.thresholds
        admitted = np.flatnonzero(self.rank[self.positions] < limit)
        hits, group = self.found[admitted], self.group[admitted]
        # (H,) setting and candidate of each hit, one setting after the other
        setting, candidate = np.divmod(np.flatnonzero(np.ascontiguousarray(hits.T)), max(len(hits), 1))
        row = setting * K + group[candidate]
        num_hits = np.bincount(row, minlength=self.settings * K)
        q, s = np.zeros((2, len(num_hits), len(self.recalls)))
        first_scores = np.tile(self.first_scores, self.settings)
        s[:, np.logical_and.accumulate(self.recalls <= 0)] = first_scores[:, None]  # reached by the first detection
        met = np.flatnonzero(num_hits)
        if not len(met):
            return q, s, num_hits
        needed = self.needed[met // K // T, met % K]
        reached = needed <= num_hits[met, None]
        reached = np.logical_and.accumulate(reached, axis=1)  # as in pycocotools, none is reached after the first miss
        order = np.argsort(self.recalls, kind="stable")  # they may be given in any
        line, column = np.nonzero(reached[:, order])
        column = order[column]
        ends = np.cumsum(num_hits[met])
        starts = ends - num_hits[met]
        number = np.arange(1, len(row) + 1) - np.repeat(starts, num_hits[met])  # objects found up to each hit
        precision = number / (self._counted(limit, admitted, setting, candidate) + np.spacing(1))
        wanted = needed[line, column]
        first = starts[line] + np.maximum(wanted, 1) - 1  # the hit that reaches the recall
        best = np.zeros(needed.shape)
        best[line, column] = _best_from(precision, first, line, ends)
        falling = order[::-1]
        best[:, falling] = np.maximum.accumulate(best[:, falling], axis=1)
        q[met] = np.where(reached, best, 0)
        scores = self.scores[admitted[candidate[first]]]
        s[met] = 0
        s[met[line], column] = np.where(wanted > 0, scores, first_scores[met[line]])
        return q, s, num_hits

    def _counted(self, limit: int, admitted: np.ndarray, setting: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        """(H,) detections of the category that count up to each hit: as if nothing was ever matched, and the change."""
        area, group = setting // self.thresholds, self.group[admitted]
        unmatched = np.cumsum(self.counting & (self.rank < limit), axis=1, dtype=np.int32)  # (A, n)
        positions = self.positions[admitted]
        usual = self.counting[:, positions].T.astype(np.int8)
        change = self.counts[admitted].view(np.int8) - np.repeat(usual, self.thresholds, axis=1)
        change = np.cumsum(change, axis=0, dtype=np.int32)  # (S, C)
        found = unmatched[area, positions[candidate]] + change[candidate, setting]
        later = self.starts > 0  # the sums go on from one category to the next: what came before is taken off
        before = np.zeros((len(unmatched), len(self.starts)), np.int32)
        before[:, later] = unmatched[:, self.starts[later] - 1]
        first = np.searchsorted(group, np.arange(len(self.starts)))  # each category's first candidate
        changed = np.zeros((len(self.starts), self.settings), np.int32)
        changed[first > 0] = change[first[first > 0] - 1]
        of_hit = group[candidate]
        return found - before[area, of_hit] - changed[of_hit, setting]


def _needed(num_truth: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """(A, K, R) how many of `num_truth` (K, A) objects have to be found for each recall; of none, more than any."""
    numbers, which = np.unique(num_truth.T, return_inverse=True)
    tables = [
        np.searchsorted(np.arange(number + 1) / number, recalls, side="left")
        if number
        else np.full(len(recalls), np.iinfo(np.int32).max)
        for number in numbers.tolist()
    ]
    return np.reshape(tables, (len(tables), -1))[which.reshape(num_truth.T.shape)]


def _best_from(precision: np.ndarray, first: np.ndarray, row: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(P,) the largest from each place `first` on, up to the next one or to the end of its row.

    Args:
        precision: (H,) one row after the other. first, row: (P,) ascending. ends: of the rows.
    """
    if not len(first):
        return np.zeros(0)
    block = np.cumsum(np.diff(row, prepend=row[0]) > 0)
    slots = np.arange(len(first)) + block  # a cut stands between two blocks
    cuts = np.empty(len(first) + block[-1] + 1, np.int64)
    cuts[slots] = first
    last = np.append(np.flatnonzero(np.diff(block)), len(first) - 1)
    cuts[slots[last] + 1] = ends[row[last]]
    return np.maximum.reduceat(np.append(precision, 0), cuts)[slots]
