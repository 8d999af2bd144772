"""What COCO evaluation counted, whatever tool counted it: the arrays, the match table, and curves drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vertebra_eval.coco.match_columns import MatchColumns

__all__ = ["CocoArrays", "MatchTable", "best_threshold", "pr_curve"]


@dataclass
class MatchTable:
    """The matches at one IoU threshold, objects of all sizes.

    Args:
        iou: the threshold.
        detection_image, detection_class: (D,) int64; detection_score: (D,) float64.
        detection_state: (D,) int8, 1 matched, 0 unmatched, -1 does not count (matched a crowd).
        truth_image, truth_class: (G,) int64, objects that count.
        truth_score: (G,) float64, score of the detection matched to it; NaN where unmatched.
    """

    iou: float
    detection_image: np.ndarray
    detection_class: np.ndarray
    detection_score: np.ndarray
    detection_state: np.ndarray
    truth_image: np.ndarray
    truth_class: np.ndarray
    truth_score: np.ndarray

    def errors_by_image(self, num_images: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """(N,) false detections and (N,) missed objects of each image, for detections from `threshold` on."""
        false = (self.detection_state == 0) & (self.detection_score >= threshold)
        missed = ~(self.truth_score >= threshold)
        return (
            np.bincount(self.detection_image[false], minlength=num_images),
            np.bincount(self.truth_image[missed], minlength=num_images),
        )


@dataclass
class CocoArrays:
    """COCO's accumulated arrays for one task, with T IoU thresholds, R recalls, K classes, A areas, M limits.

    Args:
        precision: (T, R, K, A, M) float64, -1 where there is no ground truth.
        recall: (T, K, A, M) float64, -1 likewise.
        scores: (T, R, K, A, M) float64, score at which the recall is reached.
        iou_thresholds: (T,); recall_thresholds: (R,); areas: names of `AREA_RANGES`; max_dets: (M) ascending.
        num_truth: (K, A) int64, objects that count. num_crowd: (K,) int64, objects that do not.
        num_detections: (K,) int64.
        matches: at IoU 0.5, or at the threshold nearest to it.
        columns: the matches at every threshold; None from a tool that keeps none.
    """

    task: str
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    iou_thresholds: np.ndarray
    recall_thresholds: np.ndarray
    areas: list[str]
    max_dets: list[int]
    num_truth: np.ndarray
    num_crowd: np.ndarray
    num_detections: np.ndarray
    matches: MatchTable
    columns: MatchColumns | None = None

    def iou_index(self, iou: float) -> int | None:
        """Row of an IoU threshold; None if it was not evaluated."""
        found = np.flatnonzero(np.isclose(self.iou_thresholds, iou))
        return int(found[0]) if len(found) else None


def pr_curve(arrays: CocoArrays, iou: float | None = None) -> np.ndarray | None:
    """Precision (R,) at each recall, mean over the classes that have objects; None if no class has.

    Args:
        iou: one IoU threshold; None: the mean over all of them.
    """
    rows = slice(None) if iou is None else arrays.iou_index(iou)
    if rows is None:
        return None
    precision = arrays.precision[rows, :, :, 0, -1]  # (T, R, K) or (R, K); all sizes, most detections
    if precision.ndim == 3:
        precision = precision.mean(axis=0)  # a class without objects is -1 at every threshold
    present = (precision > -1).all(axis=0)
    return precision[:, present].mean(axis=1) if present.any() else None


def best_threshold(matches: MatchTable) -> float | None:
    """The score from which on detections have the best F1 over all classes together; None without a hit."""
    counted = matches.detection_state >= 0
    order = np.argsort(-matches.detection_score[counted], kind="stable")
    scores, hits = matches.detection_score[counted][order], matches.detection_state[counted][order] == 1
    if not hits.any():
        return None
    true = np.cumsum(hits)
    f1 = 2 * true / (np.arange(1, len(hits) + 1) + len(matches.truth_image))
    f1[:-1][scores[:-1] == scores[1:]] = -1  # a threshold cannot part equal scores
    return float(scores[int(np.argmax(f1))])
