"""The matches at every IoU threshold, as plain columns: what all analyses of detections start from.

No evaluator is known here: whatever tool matches detections to objects fills these columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vertebra_eval.coco.curves import MatchTable

if TYPE_CHECKING:
    from vertebra_eval.coco import CocoResult, DetectionColumns, GroundTruthColumns

__all__ = ["MatchColumns", "columns_of_result"]


@dataclass
class MatchColumns:
    """D detections and G objects in N images, matched within image and class at T thresholds, objects of all sizes.

    The objects are the ground truth's in its order; for segm those without a mask are ignored.

    Args:
        num_images: N; images are rows from 0.
        class_names: (K) names by class number.
        iou_thresholds: (T,) of box IoU, mask IoU or OKS, ascending.
        detection_row: (D,) int64, which detection of the table or file it is. Those beyond the largest limit on
            detections per image and class are not among the D.
        detection_image, detection_class: (D,) int64; detection_score: (D,) float64.
        detection_match: (D, T) int64, row of the matched object; -1 none.
        detection_ignored: (D, T) bool, does not count: it matched an object that does not.
        truth_image, truth_class: (G,) int64.
        truth_ignored: (G,) bool, does not count: a crowd region, or an object without labeled keypoints.
        truth_box: (G, 4) float64 `xyxy` pixels; truth_area: (G,) square pixels as annotated.
        detection_box: (D, 4) float64 `xyxy` pixels; None where detections are not boxes.

    Within an image and class, detections stand in the order they were matched: best score first.
    """

    num_images: int
    class_names: list[str]
    iou_thresholds: np.ndarray
    detection_row: np.ndarray
    detection_image: np.ndarray
    detection_class: np.ndarray
    detection_score: np.ndarray
    detection_match: np.ndarray
    detection_ignored: np.ndarray
    truth_image: np.ndarray
    truth_class: np.ndarray
    truth_ignored: np.ndarray
    truth_box: np.ndarray
    truth_area: np.ndarray
    detection_box: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def threshold_index(self, iou: float) -> int | None:
        """Column of an IoU threshold; None if it was not evaluated."""
        found = np.flatnonzero(np.isclose(self.iou_thresholds, iou))
        return int(found[0]) if len(found) else None

    def at(self, index: int) -> MatchTable:
        """The match table at threshold number `index`."""
        ignored, match = self.detection_ignored[:, index], self.detection_match[:, index]
        met = (match >= 0) & ~ignored
        truth_score = np.full(len(self.truth_image), np.nan)
        truth_score[match[met]] = self.detection_score[met]
        counts = ~self.truth_ignored
        return MatchTable(
            iou=float(self.iou_thresholds[index]),
            detection_image=self.detection_image,
            detection_class=self.detection_class,
            detection_score=self.detection_score,
            detection_state=np.where(ignored, -1, met).astype(np.int8),
            truth_image=self.truth_image[counts],
            truth_class=self.truth_class[counts],
            truth_score=truth_score[counts],
        )


def columns_of_result(result: CocoResult, truth: GroundTruthColumns, detections: DetectionColumns) -> MatchColumns:
    """The matches of an evaluation, out of its table for objects of all sizes."""
    matches, boxes = result.matches, None
    rows = matches.detection
    match = matches.matched().astype(np.int64)
    match[(match >= 0) & np.append(matches.is_nothing, False)[match]] = -1
    if result.task == "bbox":
        boxes = _corners(detections.boxes[rows])
    return MatchColumns(
        num_images=truth.num_images,
        class_names=list(truth.category_names),
        iou_thresholds=result.params.iou_thresholds,
        detection_row=rows,
        detection_image=detections.image[rows],
        detection_class=detections.category[rows],
        detection_score=detections.scores[rows],
        detection_match=match,
        detection_ignored=matches.ignored(),
        truth_image=truth.image,
        truth_class=truth.category,
        truth_ignored=matches.truth_ignored[0],
        truth_box=_corners(truth.boxes),
        truth_area=truth.areas,
        detection_box=boxes,
    )


def _corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) `xywh` to `xyxy`."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
