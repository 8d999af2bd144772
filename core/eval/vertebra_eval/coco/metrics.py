"""COCO's numbers out of its arrays, each either a fraction or None with a reason in words.

Definitions: https://cocodataset.org/#detection-eval. AP is the mean of precision over recalls, IoU thresholds and
classes; AR the mean of the recall reached over IoU thresholds and classes; classes without objects stay out of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vertebra_eval.coco.params import CocoParams
from vertebra_eval.coco.result import CocoResult

__all__ = ["METRIC_MEANINGS", "all_undefined", "coco_metrics", "metric_names"]

_SHORT = {"small": "s", "medium": "m", "large": "l"}
_OBJECTS = {"segm": " with a mask", "boundary": " with a mask", "keypoints": " with labeled keypoints"}
METRIC_MEANINGS = {
    "AP": "average precision, mean over IoU 0.50 to 0.95",
    "AP50": "average precision at IoU 0.50",
    "AP75": "average precision at IoU 0.75",
    "APs": "AP of objects below 32² pixels",
    "APm": "AP of objects of 32² to 96² pixels",
    "APl": "AP of objects above 96² pixels",
    "AR": "average recall, mean over IoU 0.50 to 0.95",
    "AR_50": "recall at IoU 0.50",
    "AR_75": "recall at IoU 0.75",
    "AR50": "recall at IoU 0.50",
    "AR75": "recall at IoU 0.75",
    "ARs": "AR of objects below 32² pixels",
    "ARm": "AR of objects of 32² to 96² pixels",
    "ARl": "AR of objects above 96² pixels",
    "AP_easy": "AP of CrowdPose's images with a crowd index below 0.2",
    "AP_medium": "AP of CrowdPose's images with a crowd index from 0.2 on, below 0.8",
    "AP_hard": "AP of CrowdPose's images with a crowd index from 0.8 on",
    "F1": "F1 of all classes together at the confidence, IoU 0.50",
    "precision": "share of the detections from the confidence on that match an object, IoU 0.50",
    "recall": "share of the objects that detections from the confidence on match, IoU 0.50",
    "mIoU": "mean overlap of matched detections with their objects",
    "confidence": "score from which on detections count for F1, precision, recall and mIoU",
}
"""The meaning of each number, for readers of the report (`AR<n>`: with n detections per image and class)."""


def metric_names(task: str, max_dets: Sequence[int], areas: Sequence[str] | None = None) -> list[str]:
    """The summary numbers of a task, in COCO's order: its 12, or 10 for keypoints, and recall at two IoU thresholds.

    Args:
        areas: area ranges; the first holds everything. None: COCO's for the task. `AP_<range>` and `AR_<range>` are
            those of a range that COCO does not have.
    """
    names = list(CocoParams.for_task(task).area_ranges if areas is None else areas)
    ends = [_SHORT.get(name, f"_{name}") for name in names[1:]]
    recall = ["AR", "AR50", "AR75"] if task == "keypoints" else [*(f"AR{n}" for n in max_dets), "AR_50", "AR_75"]
    return ["AP", "AP50", "AP75", *(f"AP{end}" for end in ends), *recall, *(f"AR{end}" for end in ends)]


def coco_metrics(result: CocoResult, class_names: list[str]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Flat metrics `<task>/<name>` and `<task>/<name>-<class>`, and a reason for each that is None."""
    metrics: dict[str, float | None] = {}
    reasons: dict[str, str] = {}

    def put(key: str, value: float | str) -> None:
        metrics[f"{result.task}/{key}"] = None if isinstance(value, str) else value
        if isinstance(value, str):
            reasons[f"{result.task}/{key}"] = value

    for name in metric_names(result.task, result.params.max_dets, list(result.params.area_ranges)):
        put(name, _summary_value(result, name))
    for number, class_name in enumerate(class_names):
        for name in ("AP", "AP50", "AP75", "AR"):
            put(f"{name}-{class_name}", _value(result, name, classes=number, class_name=class_name))
    return metrics, reasons


def all_undefined(
    task: str, max_dets: Sequence[int], class_names: list[str], reason: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The same keys as `coco_metrics`, all None for one reason."""
    keys = [f"{task}/{name}" for name in metric_names(task, max_dets)]
    keys += [f"{task}/{name}-{label}" for label in class_names for name in ("AP", "AP50", "AP75", "AR")]
    return dict.fromkeys(keys), dict.fromkeys(keys, reason)


def _summary_value(result: CocoResult, name: str) -> float | str:
    kind, suffix = name[:2], name[2:]
    area = {_SHORT.get(area, f"_{area}"): area for area in list(result.params.area_ranges)[1:]}.get(suffix)
    if area is not None:
        return _value(result, kind, area=area)
    if kind == "AR" and result.task != "keypoints" and suffix.isdecimal():
        return _value(result, kind, limit=result.params.max_dets.index(int(suffix)))
    return _value(result, name.replace("_", ""))


def _value(
    result: CocoResult,
    name: str,
    *,
    area: str | None = None,
    limit: int = -1,
    classes: int | None = None,
    class_name: str | None = None,
) -> float | str:
    """One number, or the sentence that says why there is none.

    Args:
        name: AP or AR over all IoU thresholds, or with 50 or 75 behind it at one.
        area: an area range; None: the first, which holds everything.
        limit: which of `max_dets`; -1 the most.
        classes: one class number; None: all.
    """
    kind, suffix = name[:2], name[2:]
    rows: int | slice = slice(None)
    if suffix:
        index = result.iou_index(int(suffix) / 100)
        if index is None:
            return f"the IoU threshold {int(suffix) / 100:g} was not among those evaluated"
        rows = index
    which = slice(None) if classes is None else classes
    column = 0 if area is None else list(result.params.area_ranges).index(area)
    source = (
        result.precision[rows, :, which, column, limit] if kind == "AP" else result.recall[rows, which, column, limit]
    )
    defined = source[source > -1]
    return float(np.mean(defined)) if defined.size else _reason(result, area, classes, class_name)


def _reason(result: CocoResult, area: str | None, classes: int | None, class_name: str | None) -> str:
    """Why nothing counts in an area range, over one class or all."""
    which = slice(None) if classes is None else classes
    things = "objects" + _OBJECTS.get(result.task, "")
    of_class = "" if class_name is None else f" of class {class_name}"
    if result.num_truth.shape[0] == 0:
        return "the dataset has no classes"
    if area is not None and result.num_truth[which, 0].sum():
        low, high = result.params.area_ranges[area]
        size = f"below {high:g}" if low == 0 else f"above {low:g}" if high >= 1e10 else f"{low:g} to {high:g}"
        return f"the ground truth has no {area} {things}{of_class} (area {size} square pixels)"
    ignored = int(result.num_ignored[which].sum())
    if ignored:
        what = "are crowd regions" + (" or have no labeled keypoints" if result.task == "keypoints" else "")
        return f"the ground truth has no {things}{of_class} that count: all {ignored} {what}"
    return f"the ground truth has no {things}{of_class}"
