"""Which detection matched which object: the one table that every curve, split, interval and comparison is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns

__all__ = ["Matches"]


@dataclass(eq=False)
class Matches:
    """The matches in every area range (A) and at every IoU threshold (T), for the n detections that took part.

    They are in the order category, falling score, image. Only candidates, S detections that overlap some object enough
    at some threshold, have rows in `truth`; the others are unmatched. What has no `area` in its name is of the first
    range, which holds objects of all sizes.

    Args:
        objects, detections: the G objects and the detections that were matched.
        iou_thresholds: (T,) of box IoU, mask IoU or OKS.
        detection: (n,) rows of the detection columns. rank: (n,) detections of the same image and category before it.
        candidate: (S,) ascending, positions in the above.
        truth: (S, A, T) int32, row of the matched object, or -1.
        outside: (A, n) bool, the detection's own area is outside the range, so unmatched it does not count.
        truth_ignored: (A, G) bool, objects that do not count in a range.
        is_nothing: (G,) bool, objects with annotation id 0: pycocotools takes a match with them for none.
        is_pooled: all categories were matched as one.
    """

    objects: GroundTruthColumns
    detections: DetectionColumns
    iou_thresholds: np.ndarray
    detection: np.ndarray
    rank: np.ndarray
    candidate: np.ndarray
    truth: np.ndarray
    outside: np.ndarray
    truth_ignored: np.ndarray
    is_nothing: np.ndarray
    is_pooled: bool = False

    def matched(self, area: int = 0) -> np.ndarray:
        """(n, T) int32, row of the object matched to each detection, or -1."""
        table = np.full((len(self.detection), self.truth.shape[2]), -1, dtype=np.int32)
        table[self.candidate] = self.truth[:, area]
        return table

    def ignored(self, area: int = 0) -> np.ndarray:
        """(n, T) bool, the detection is neither right nor wrong."""
        table = np.repeat(self.outside[area][:, None], self.truth.shape[2], axis=1)
        table[self.candidate] = self.candidate_state(slice(None), slice(area, area + 1))[1][:, 0]
        return table

    def candidate_state(self, which: slice, areas: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """(S, A, T) matched an object, (S, A, T) does not count; of some of the candidates and area ranges."""
        truth = self.truth[which, areas]
        matched = truth >= 0
        found = matched & ~self.is_nothing[truth] if len(self.is_nothing) else matched
        ignored = ~found & self.outside[areas, self.candidate[which]].T[:, :, None]
        if len(self.is_nothing):
            rows = np.arange(len(self.truth_ignored))[areas, None]
            ignored |= matched & self.truth_ignored[rows, truth]
        return found, ignored

    @property
    def num_images(self) -> int:
        return self.objects.num_images

    @property
    def class_names(self) -> list[str]:
        return list(self.objects.category_names)

    @property
    def num_classes(self) -> int:
        return self.objects.num_categories

    @cached_property
    def image(self) -> np.ndarray:
        """(n,) int, image of each detection."""
        return self.detections.image[self.detection]

    @cached_property
    def category(self) -> np.ndarray:
        """(n,) int, category of each detection."""
        return self.detections.category[self.detection]

    @cached_property
    def score(self) -> np.ndarray:
        """(n,) float64, score of each detection."""
        return self.detections.scores[self.detection]

    @cached_property
    def match(self) -> np.ndarray:
        """(n, T) int64, row of the matched object, or -1; an object with id 0 is none."""
        match = self.matched().astype(np.int64)
        match[(match >= 0) & np.append(self.is_nothing, False)[match]] = -1
        return match

    @cached_property
    def does_not_count(self) -> np.ndarray:
        """(n, T) bool, the detection is neither right nor wrong."""
        return self.ignored()

    @property
    def object_ignored(self) -> np.ndarray:
        """(G,) bool, does not count: a crowd region, or an object without labeled keypoints."""
        return self.truth_ignored[0]

    @property
    def half(self) -> int:
        """Number of the IoU threshold nearest to 0.5."""
        return int(np.argmin(np.abs(self.iou_thresholds - 0.5)))

    def threshold_index(self, iou: float) -> int | None:
        """Number of an IoU threshold; None if it was not evaluated."""
        found = np.flatnonzero(np.isclose(self.iou_thresholds, iou))
        return int(found[0]) if len(found) else None

    def state(self, index: int) -> np.ndarray:
        """(n,) int8 at a threshold: 1 matched an object, 0 unmatched, -1 does not count."""
        ignored = self.does_not_count[:, index]
        return np.where(ignored, -1, (self.match[:, index] >= 0) & ~ignored).astype(np.int8)

    def truth_score(self, index: int) -> np.ndarray:
        """(G,) float64 at a threshold: score of the detection matched to each object; NaN where unmatched."""
        score = np.full(len(self.objects), np.nan)
        right = self.state(index) == 1
        score[self.match[right, index]] = self.score[right]
        return score

    def errors_by_image(self, index: int, score: float) -> tuple[np.ndarray, np.ndarray]:
        """(N,) false detections and (N,) missed objects of each image, for detections from `score` on."""
        false = (self.state(index) == 0) & (self.score >= score)
        missed = ~(self.truth_score(index) >= score) & ~self.object_ignored
        return (
            np.bincount(self.image[false], minlength=self.num_images),
            np.bincount(self.objects.image[missed], minlength=self.num_images),
        )

    def best_threshold(self, index: int) -> float | None:
        """The score from which on detections have the best F1 over all classes together; None without a hit."""
        state = self.state(index)
        order = np.flatnonzero(state >= 0)
        order = order[np.argsort(-self.score[order], kind="stable")]
        scores, hits = self.score[order], state[order] == 1
        if not hits.any():
            return None
        true = np.cumsum(hits)
        f1 = 2 * true / (np.arange(1, len(hits) + 1) + np.count_nonzero(~self.object_ignored))
        f1[:-1][scores[:-1] == scores[1:]] = -1  # a threshold cannot part equal scores
        return float(scores[int(np.argmax(f1))])
