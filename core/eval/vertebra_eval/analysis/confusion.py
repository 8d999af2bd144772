"""Which classes a detector takes for which: a confusion matrix with background, at one score and IoU threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis.overlaps import Overlaps
from vertebra_eval.coco.matches import Matches

__all__ = ["ConfusionMatrix", "confusion_matrix"]


@dataclass
class ConfusionMatrix:
    """Objects and detections of K classes and background.

    Args:
        counts: (K + 1, K + 1) int64, rows the annotated class, columns the detected one; the last row is background
            (detections of nothing), the last column missed objects. Background matched with background is
            not counted: 0.
        class_names: (K); score: detections from here on are counted; iou: the least overlap of a pair.
        ignored: detections that lie in a region which does not count (a crowd).
    """

    counts: np.ndarray
    class_names: list[str]
    score: float
    iou: float
    ignored: int = 0

    @property
    def labels(self) -> list[str]:
        return [*self.class_names, "background"]

    def confusions(self, most: int) -> list[tuple[str, str, int]]:
        """(annotated, detected, count) of the pairs of different classes that occur most often, without background."""
        wrong = self.counts[:-1, :-1].copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [np.unravel_index(position, wrong.shape) for position in order]
        return [(self.class_names[a], self.class_names[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b]]


def confusion_matrix(matches: Matches, pairs: Overlaps, *, score: float, iou: float = 0.5) -> ConfusionMatrix:
    """Pair detections with objects whatever their classes, and count.

    Best score first, each detection takes the free object of its image that it overlaps most, if by `iou` at least;
    among equal overlaps one of its own class. What is left over is background. A detection without an object that
    lies by `iou` in a crowd region of its class is not counted, nor are crowd regions.

    Args:
        pairs: overlaps of at least `iou`, or fewer.
        score: detections below are ignored.
    """
    classes = matches.num_classes
    judged = matches.score >= score
    use = (pairs.iou >= iou) & judged[pairs.detection]
    detection, truth, overlap = pairs.detection[use], pairs.truth[use], pairs.iou[use]
    other = matches.category[detection] != matches.objects.category[truth]
    crowd = matches.object_ignored[truth]
    in_crowd = np.unique(detection[crowd & ~other])

    order = np.lexsort((other, -overlap, detection, -matches.score[detection]))
    order = order[~crowd[order]]
    taken_by = np.full(len(matches.objects.category), -1)
    pair_of = np.full(len(matches.category), -1)
    for d, g in zip(detection[order].tolist(), truth[order].tolist(), strict=True):
        if pair_of[d] < 0 and taken_by[g] < 0:
            pair_of[d], taken_by[g] = g, d

    alone = judged & (pair_of < 0)
    ignored = in_crowd[alone[in_crowd]]
    alone[ignored] = False
    paired = np.flatnonzero(pair_of >= 0)
    missed = (taken_by < 0) & ~matches.object_ignored
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (matches.objects.category[pair_of[paired]], matches.category[paired]), 1)
    counts[classes, :classes] = np.bincount(matches.category[alone], minlength=classes)
    counts[:classes, classes] = np.bincount(matches.objects.category[missed], minlength=classes)
    return ConfusionMatrix(counts, list(matches.class_names), score, iou, len(ignored))
