"""Pascal VOC's average precision, of 2007 and of 2010 and later: `voc_evaluate`.

Source: the development kit of the VOC challenges (http://host.robots.ox.ac.uk/pascal/VOC), VOCevaldet and VOCap. In an
image and class each detection belongs to the object it overlaps most, found before or not; if the IoU is at least 0.5
it is right for the first detection of that object, by falling score, wrong for the others, and neither where the
object is difficult. Boxes are exclusive of their end here; the kit's include it, and count one pixel more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from vertebra_eval.coco import DetectionColumns, GroundTruthColumns, read_detections, read_ground_truth
from vertebra_eval.coco.numbers import odd_detections
from vertebra_eval.coco.order import pairs_of_images, rank_detections, stable_argsort
from vertebra_eval.coco.overlap import PAIRS_AT_ONCE, box_overlaps

__all__ = ["DIFFICULT", "VOCNumbers", "average_precision_07", "average_precision_area", "voc_evaluate", "voc_numbers"]

DIFFICULT = ("difficult", "ignore", "iscrowd")
"""Fields of an annotation that leave an object out; converters from VOC to COCO write one or another."""


class VOCNumbers(dict):
    """`voc/AP` (2010 and later, the area under the curve), `voc/AP07` (11 points), and both with `-<class>`.

    Args:
        reasons: one sentence for each metric that is None. notes: what was dropped or assumed.
    """

    def __init__(self, metrics: dict[str, float | None], reasons: dict[str, str], notes: list[str]) -> None:
        super().__init__(metrics)
        self.reasons = reasons
        self.notes = notes


def voc_evaluate(gt: Any, dt: Any, *, iou: float = 0.5, image_ids: Iterable[Hashable] | None = None) -> VOCNumbers:
    """Pascal VOC's average precision of boxes.

    Args:
        gt: COCO ground truth: a path, or the dict in it; an annotation with `difficult` (or `ignore`, `iscrowd`) set
            counts neither way.
        dt: COCO results: a path, or the list in it.
        iou: from which on a box matches an object.
        image_ids: only these. None: all of the ground truth.
    """
    truth = read_ground_truth(gt, "bbox", image_ids=image_ids, ignored_by=DIFFICULT)
    detections = read_detections(dt, truth, "bbox")
    numbers = voc_numbers(truth, detections, iou=iou)
    numbers.notes += [*truth.notes, *detections.notes, *odd_detections(truth, detections, "bbox")]
    return numbers


def voc_numbers(truth: GroundTruthColumns, detections: DetectionColumns, *, iou: float = 0.5) -> VOCNumbers:
    """Like voc_evaluate, but takes columns. `truth.ignored` are the difficult objects; crowds are not treated
    specially."""
    metrics: dict[str, float | None] = {"voc/AP": None, "voc/AP07": None}
    reasons: dict[str, str] = {}
    of_class: list[tuple[float, float]] = []
    for number, name in enumerate(truth.category_names):
        objects = np.flatnonzero(truth.category == number)
        objects = objects[stable_argsort(truth.image[objects], truth.num_images)]
        num_truth = int(np.count_nonzero(~truth.ignored[objects]))
        keys = (f"voc/AP-{name}", f"voc/AP07-{name}")
        if not num_truth:
            metrics |= dict.fromkeys(keys)
            reasons |= dict.fromkeys(keys, _no_object(f" of class {name}", len(objects)))
            continue
        hits = _hits(truth, detections, np.flatnonzero(detections.category == number), objects, iou)
        recall = np.cumsum(hits) / num_truth
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        of_class.append((average_precision_area(recall, precision), average_precision_07(recall, precision)))
        metrics |= dict(zip(keys, of_class[-1], strict=True))
    if of_class:
        metrics["voc/AP"], metrics["voc/AP07"] = np.mean(of_class, axis=0).tolist()
    else:
        reasons |= dict.fromkeys(("voc/AP", "voc/AP07"), _no_object("", len(truth)))
    return VOCNumbers(metrics, reasons, [])


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under precision (n,) over recall (n,) by falling score, made monotone: VOC 2010 and later."""
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this or any higher recall
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def average_precision_07(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean of the best precision at recalls of at least 0, 0.1, ..., 1: VOC 2007."""
    points = np.arange(11) / 10
    reached = recall[None] >= points[:, None] - 1e-12  # (11, n); 0.3 may be 0.30000000000000004
    return float(np.mean(np.max(np.where(reached, precision[None], 0.0), axis=1, initial=0.0)))


def _hits(
    truth: GroundTruthColumns, detections: DetectionColumns, own: np.ndarray, objects: np.ndarray, iou: float
) -> np.ndarray:
    """(n,) bool by falling score: right or wrong. Detections of difficult objects are ignored.

    Args:
        own: rows of one class's detections. objects: rows of its objects, image after image.
    """
    ranked = rank_detections(own, detections.image, detections.scores, truth.num_images, max(1, len(own)))
    best, partner = np.full(len(ranked.rows), -np.inf), np.full(len(ranked.rows), -1)
    for position, which in pairs_of_images(ranked, truth.image[objects], PAIRS_AT_ONCE["bbox"]):
        boxes, rows = detections.boxes[ranked.rows[position]], objects[which]
        overlap = box_overlaps(boxes, truth.boxes[rows], np.zeros(len(rows), bool))
        starts = np.flatnonzero(np.diff(position, prepend=-1))  # a detection's pairs are together
        most = np.maximum.reduceat(overlap, starts)
        counts = np.diff(starts, append=len(position))
        first = np.flatnonzero(overlap == np.repeat(most, counts))  # the earlier object where overlaps are equal
        first = first[np.unique(position[first], return_index=True)[1]]
        best[position[first]], partner[position[first]] = overlap[first], rows[first]
    met = best >= iou
    _, earliest = np.unique(np.where(met, partner, -1), return_index=True)
    first_of_object = np.zeros(len(met), bool)
    first_of_object[earliest] = True
    counts = ~(met & truth.ignored[partner]) if len(truth) else np.ones(len(met), bool)
    return (met & first_of_object)[counts]


def _no_object(of_class: str, num_ignored: int) -> str:
    if num_ignored:
        return f"the ground truth has no objects{of_class} that count: all {num_ignored} are difficult"
    return f"the ground truth has no objects{of_class}"
