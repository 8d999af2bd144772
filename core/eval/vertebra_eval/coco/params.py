"""The parameters of COCO evaluation: thresholds, area ranges, limits. The defaults are COCO's.

Source: https://cocodataset.org/#detection-eval and #keypoints-eval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vertebra_eval.area_ranges import AREA_RANGES
from vertebra_eval.coco.objects import COCO_MAX_DETS
from vertebra_eval.errors import DataError

__all__ = ["COCO_SIGMAS", "COCO_TASKS", "HIGHEST_THRESHOLD", "TASKS", "CocoParams", "sigmas_for"]

COCO_TASKS = ("bbox", "segm", "keypoints")
TASKS = (*COCO_TASKS, "boundary")
"""COCO's tasks, and masks compared by the smaller of mask IoU and boundary IoU."""
_TENFOLD = (
    *(0.26, 0.25, 0.25, 0.35, 0.35),  # nose, eyes, ears
    *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62),  # shoulders, elbows, wrists
    *(1.07, 1.07, 0.87, 0.87, 0.89, 0.89),  # hips, knees, ankles
)
COCO_SIGMAS = np.array(_TENFOLD) / 10  # 0.26 / 10 is another double than 0.026, and pycocotools has the former
"""OKS standard deviations of COCO's 17 person keypoints (https://cocodataset.org/#keypoints-eval)."""
COCO_SIGMAS.setflags(write=False)

HIGHEST_THRESHOLD = 1 - 1e-10
"""Higher thresholds count as this one, as in pycocotools: a perfect overlap may round below 1."""


@dataclass(frozen=True, kw_only=True)
class CocoParams:
    """T IoU thresholds, R recall thresholds, A area ranges, M limits on detections.

    Args:
        iou_thresholds: (T,) of box IoU, mask IoU or OKS.
        recall_thresholds: (R,) recalls at which precision is read off.
        area_ranges: name -> (lowest, highest) square pixels, both inclusive. The first one should hold everything.
        max_dets: (M,) ascending: maximum numbers of detections per image and category, best scores first. All are
            matched under the largest limit.
        use_categories: False pools all categories, as for proposals: K = 1.
        sigmas: (J,) OKS standard deviation of each keypoint, as a part of the object's scale.
    """

    iou_thresholds: np.ndarray = field(default_factory=lambda: np.linspace(0.5, 0.95, 10))
    recall_thresholds: np.ndarray = field(default_factory=lambda: np.linspace(0.0, 1.0, 101))
    area_ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(AREA_RANGES))
    max_dets: tuple[int, ...] = (1, 10, 100)
    use_categories: bool = True
    sigmas: np.ndarray = field(default_factory=lambda: COCO_SIGMAS)

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # frozen: normalize once
        set_(self, "iou_thresholds", np.asarray(self.iou_thresholds, dtype=np.float64).reshape(-1))
        set_(self, "recall_thresholds", np.asarray(self.recall_thresholds, dtype=np.float64).reshape(-1))
        set_(self, "sigmas", np.asarray(self.sigmas, dtype=np.float64).reshape(-1))
        set_(self, "max_dets", tuple(sorted(int(limit) for limit in self.max_dets)))
        if not self.max_dets or self.max_dets[0] < 1:
            raise DataError(f"max_dets is {self.max_dets}; expected counts of at least 1, such as (1, 10, 100)")
        if not len(self.iou_thresholds) or not np.isfinite(self.iou_thresholds).all():
            raise DataError(f"iou_thresholds is {self.iou_thresholds.tolist()}; expected finite numbers, such as [0.5]")
        if not len(self.recall_thresholds) or not self.area_ranges:
            raise DataError("recall_thresholds and area_ranges need at least one entry each")

    @classmethod
    def for_task(cls, task: str, **changes: Any) -> CocoParams:
        """COCO's own for bbox, segm or keypoints (for boundary those of segm), with some changed.

        Raises:
            DataError: a task that is not one of those.
        """
        if task not in TASKS:
            raise DataError(f"task is {task!r}; expected one of {', '.join(TASKS)}")
        own: dict[str, Any] = {"max_dets": COCO_MAX_DETS[task]}
        if task == "keypoints":  # COCO judges no small persons
            own["area_ranges"] = {name: limits for name, limits in AREA_RANGES.items() if name != "small"}
        return cls(**(own | changes))

    @property
    def areas(self) -> np.ndarray:
        """(A, 2) lowest and highest area."""
        return np.array(list(self.area_ranges.values()), dtype=np.float64).reshape(-1, 2)


def sigmas_for(count: int) -> tuple[np.ndarray, str | None]:
    """(count,) OKS standard deviations for keypoints that come without any; where they are a guess, the sentence."""
    if count == len(COCO_SIGMAS):
        return COCO_SIGMAS, None
    mean = float(COCO_SIGMAS.mean())
    sentence = f"no OKS sigmas are known for these {count} keypoints; {mean:.4f}, the mean of COCO's, is used"
    return np.full(count, mean), sentence
