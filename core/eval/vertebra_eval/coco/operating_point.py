"""What a detector does at one confidence: precision, recall, F1, and how well its hits overlap their objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from vertebra_eval.coco.overlap import box_overlaps, keypoint_overlaps
from vertebra_eval.coco.result import CocoResult

__all__ = ["OperatingPoint", "operating_point"]


@dataclass(frozen=True)
class OperatingPoint:
    """Over all classes together, at one confidence and IoU threshold.

    Args:
        confidence: detections from this score on. iou: threshold of a match.
        hits, false, missed: detections that matched an object, detections that matched none, objects without a match;
            what does not count is in none of them.
        mean_iou: of the hits with their objects: box IoU, mask IoU or OKS; None without a hit.
    """

    confidence: float
    iou: float
    hits: int
    false: int
    missed: int
    mean_iou: float | None

    @property
    def precision(self) -> float | None:
        """None without detections."""
        found = self.hits + self.false
        return self.hits / found if found else None

    @property
    def recall(self) -> float | None:
        """None without objects."""
        objects = self.hits + self.missed
        return self.hits / objects if objects else None

    @property
    def f1(self) -> float | None:
        """2 hits / (2 hits + false + missed), None without detections and objects."""
        whole = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / whole if whole else None

    def metrics(self, task: str) -> tuple[dict[str, float | None], dict[str, str]]:
        """`<task>/F1`, `precision`, `recall`, `mIoU` and `confidence`, and a reason for each that is None."""
        values = {"F1": self.f1, "precision": self.precision, "recall": self.recall, "mIoU": self.mean_iou}
        why = {
            "F1": "there are neither detections nor objects that count",
            "precision": f"no detection has a score of {self.confidence:g} or above",
            "recall": "the ground truth has no objects that count",
            "mIoU": f"no detection with a score of {self.confidence:g} or above matched an object",
        }
        reasons = {f"{task}/{name}": why[name] for name, value in values.items() if value is None}
        return {f"{task}/{name}": value for name, value in values.items()} | {
            f"{task}/confidence": self.confidence
        }, reasons


def operating_point(result: CocoResult, confidence: float | None = None, iou: float = 0.5) -> OperatingPoint | str:
    """The counts at one confidence; or the sentence why there are none.

    Args:
        confidence: None: where F1 is best over all classes together.
        iou: a threshold that was evaluated.
    """
    matches = result.matches
    index = matches.threshold_index(iou)
    if index is None:
        return f"the IoU threshold {iou:g} was not among those evaluated"
    if confidence is None:
        confidence = matches.best_threshold(index)
        if confidence is None:
            return "no detection matched an object, so no confidence is better than another"
    state = matches.state(index)
    chosen = matches.score >= confidence
    hits = np.flatnonzero(chosen & (state == 1))
    missed = ~(matches.truth_score(index) >= confidence) & ~matches.object_ignored
    overlaps = _overlaps(result, hits, matches.match[hits, index])
    return OperatingPoint(
        confidence=float(confidence),
        iou=iou,
        hits=len(hits),
        false=int((chosen & (state == 0)).sum()),
        missed=int(missed.sum()),
        mean_iou=float(overlaps.mean()) if len(hits) else None,
    )


def _overlaps(result: CocoResult, hits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(P,) box IoU, mask IoU or OKS of matched pairs."""
    found, objects = result.matches.detections, result.matches.objects
    rows = result.matches.detection[hits]
    if result.task == "bbox":
        return box_overlaps(found.boxes[rows], objects.boxes[truth], np.zeros(len(rows), bool))
    if result.task == "keypoints":
        points = np.asarray(found.keypoints)[rows], np.asarray(objects.keypoints)[truth]
        return keypoint_overlaps(*points, objects.boxes[truth], objects.areas[truth], result.params.sigmas)
    assert found.masks is not None and objects.masks is not None
    pairs = zip(rows.tolist(), truth.tolist(), strict=True)
    return np.array([coco_mask.iou([found.masks[a]], [objects.masks[b]], [0])[0, 0] for a, b in pairs])
