"""What COCO evaluation gives: the full arrays, the summary numbers, and the matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.coco.params import CocoParams

__all__ = ["CocoResult", "DetectionMatches"]


@dataclass
class DetectionMatches:
    """The matches in every area range (A) and at every IoU threshold (T), for the n detections that took part.

    They are in the order category, falling score, image. Only candidates, S detections that overlap some object enough
    at some threshold, have rows in `truth`; the others are unmatched.

    Args:
        detection: (n,) rows of the detection columns. rank: (n,) detections of the same image and category before it.
        candidate: (S,) ascending, positions in the above.
        truth: (S, A, T) int32, row of the matched object in the ground truth columns, or -1.
        outside: (A, n) bool, the detection's own area is outside the range, so unmatched it does not count.
        truth_ignored: (A, G) bool, objects that do not count in a range.
        is_nothing: (G,) bool, objects with annotation id 0: pycocotools takes a match with them for none.
    """

    detection: np.ndarray
    rank: np.ndarray
    candidate: np.ndarray
    truth: np.ndarray
    outside: np.ndarray
    truth_ignored: np.ndarray
    is_nothing: np.ndarray

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
        met = truth >= 0
        found = met & ~self.is_nothing[truth] if len(self.is_nothing) else met
        ignored = ~found & self.outside[areas, self.candidate[which]].T[:, :, None]
        if len(self.is_nothing):
            rows = np.arange(len(self.truth_ignored))[areas, None]
            ignored |= met & self.truth_ignored[rows, truth]
        return found, ignored


@dataclass
class CocoResult:
    """Equal to pycocotools' arrays, to the last bit: -1 where a category has no object in an area range.

    Letters: T IoU thresholds, R recall thresholds, K categories, A area ranges, M limits on detections.

    Args:
        precision, scores: (T, R, K, A, M). recall: (T, K, A, M). stats: COCO's 12 numbers, for keypoints 10.
        num_truth: (K, A) objects that count. num_ignored, num_detections: (K,) objects ignored in every range,
            detections given.
    """

    task: str
    params: CocoParams
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    num_truth: np.ndarray
    num_ignored: np.ndarray
    num_detections: np.ndarray
    matches: DetectionMatches

    @property
    def stats(self) -> np.ndarray:
        """AP, AP50, AP75, APs, APm, APl, AR at each of three limits, ARs, ARm, ARl; for keypoints without the small
        ones and with AR, AR50, AR75. -1 where there is nothing to average, or a threshold or limit was not evaluated.
        """
        limits = self.params.max_dets
        if self.task == "keypoints":
            asked = [(None, "all"), (0.5, "all"), (0.75, "all"), (None, "medium"), (None, "large")]
            numbers = [self._mean(source, iou, area, 20) for source in "PR" for iou, area in asked]
        else:
            most = limits[min(2, len(limits) - 1)]
            numbers = [self._mean("P", None, "all", 100)]
            numbers += [self._mean("P", iou, "all", most) for iou in (0.5, 0.75)]
            numbers += [self._mean("P", None, area, most) for area in ("small", "medium", "large")]
            numbers += [self._mean("R", None, "all", limit) for limit in limits[:3]]
            numbers += [self._mean("R", None, area, most) for area in ("small", "medium", "large")]
        return np.array(numbers)

    def _mean(self, source: str, iou: float | None, area: str, limit: int) -> float:
        """Mean over thresholds, recalls and categories of what is defined."""
        if area not in self.params.area_ranges or limit not in self.params.max_dets:
            return -1.0
        array = self.precision if source == "P" else self.recall
        array = array[..., list(self.params.area_ranges).index(area), self.params.max_dets.index(limit)]
        if iou is not None:
            array = array[self.params.iou_thresholds == iou]
        defined = array[array > -1]
        return float(np.mean(defined)) if defined.size else -1.0
