"""What COCO evaluation gives: the full arrays, the summary numbers, the curves, and the matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.params import CocoParams

__all__ = ["CocoResult"]


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
    matches: Matches

    def iou_index(self, iou: float) -> int | None:
        """Number of an IoU threshold; None if it was not evaluated."""
        return self.matches.threshold_index(iou)

    def pr_curve(self, iou: float | None = None) -> np.ndarray | None:
        """Precision (R,) at each recall, mean over the classes that have objects; None if no class has.

        Args:
            iou: one IoU threshold; None: the mean over all of them.
        """
        rows = slice(None) if iou is None else self.iou_index(iou)
        if rows is None:
            return None
        precision = self.precision[rows, :, :, 0, -1]  # (T, R, K) or (R, K); all sizes, most detections
        if precision.ndim == 3:
            precision = precision.mean(axis=0)  # a class without objects is -1 at every threshold
        present = (precision > -1).all(axis=0)
        return precision[:, present].mean(axis=1) if present.any() else None

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
