"""The mistakes most worth a look: false detections of highest score, and missed objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis import BACKGROUND_IOU
from vertebra_eval.coco.match_columns import MatchColumns

__all__ = ["Mistake", "worst_false", "worst_missed"]

_PER_IMAGE = 2  # one bad image shall not fill the gallery


@dataclass(frozen=True)
class Mistake:
    """One false detection or missed object.

    Args:
        image: row of its image.
        box: (4,) float64 `xyxy`, original image pixels.
        text: class, score where it has one, and what seems to be the cause.
    """

    image: int
    box: np.ndarray
    text: str


def worst_false(columns: MatchColumns, boxes: np.ndarray, threshold: float, count: int, iou: float) -> list[Mistake]:
    """At most `count` detections from `threshold` on that matched no object, best score first.

    Args:
        boxes: (D, 4) `xyxy` of the detections, by row of the columns; the texts compare boxes for every task.
        iou: of box, mask or OKS, from which on a detection matches an object.
    """
    matches = columns.at(columns.threshold_index(iou))
    false = np.flatnonzero((matches.detection_state == 0) & (columns.detection_score >= threshold))
    order = false[np.argsort(-columns.detection_score[false], kind="stable")]
    return [
        Mistake(
            int(columns.detection_image[row]),
            boxes[row],
            f"{_name(columns, columns.detection_class[row])} {columns.detection_score[row]:.2f}, "
            f"{_why_false(columns, boxes[row], row, iou)}",
        )
        for row in _spread(order, columns.detection_image, count)
    ]


def worst_missed(columns: MatchColumns, boxes: np.ndarray, threshold: float, count: int, iou: float) -> list[Mistake]:
    """At most `count` objects that no detection from `threshold` on matched.

    First those that none matched at any score, then by the score of the one that did; large ones before small ones.
    Arguments as of `worst_false`.
    """
    matches = columns.at(columns.threshold_index(iou))
    score = np.full(len(columns.truth_image), np.inf)
    score[~columns.truth_ignored] = matches.truth_score
    missed = np.flatnonzero(~(score >= threshold))
    order = missed[np.lexsort((-columns.truth_area[missed], score[missed], ~np.isnan(score[missed])))]
    return [
        Mistake(
            int(columns.truth_image[row]),
            columns.truth_box[row],
            f"{_name(columns, columns.truth_class[row])}, "
            f"{_why_missed(columns, boxes, row, float(score[row]), threshold, iou)}",
        )
        for row in _spread(order, columns.truth_image, count)
    ]


def _spread(order: np.ndarray, image: np.ndarray, count: int) -> Iterable[int]:
    """The first `count` rows of `order`, with at most `_PER_IMAGE` of one image."""
    used: dict[int, int] = {}
    chosen: list[int] = []
    for row in order.tolist():
        if len(chosen) == count:
            break
        seen = used.get(int(image[row]), 0)
        if seen < _PER_IMAGE:
            used[int(image[row])] = seen + 1
            chosen.append(row)
    return chosen


def _why_false(columns: MatchColumns, box: np.ndarray, row: int, iou: float) -> str:
    objects = np.flatnonzero((columns.truth_image == columns.detection_image[row]) & ~columns.truth_ignored)
    overlap = _iou(box, columns.truth_box[objects])
    if not len(overlap) or overlap.max() < BACKGROUND_IOU:
        return "where nothing is annotated"
    same = columns.truth_class[objects] == columns.detection_class[row]
    if same.any() and overlap[same].max() >= iou:
        return "on an object that another detection has found"
    best = int(overlap.argmax())
    if same[best]:
        return f"badly placed: IoU {overlap[best]:.2f}"
    return f"but a {_name(columns, columns.truth_class[objects[best]])} is annotated (IoU {overlap[best]:.2f})"


def _why_missed(columns: MatchColumns, boxes: np.ndarray, row: int, score: float, threshold: float, iou: float) -> str:
    if not np.isnan(score):
        return f"found with score {score:.2f} only"
    near = np.flatnonzero(
        (columns.detection_image == columns.truth_image[row]) & (columns.detection_score >= threshold)
    )
    overlap = _iou(columns.truth_box[row], boxes[near])
    if not len(overlap) or overlap.max() < BACKGROUND_IOU:
        return "no detection here"
    best = int(overlap.argmax())
    found = f"{_name(columns, columns.detection_class[near[best]])} {columns.detection_score[near[best]]:.2f}"
    if overlap[best] >= iou and columns.detection_class[near[best]] == columns.truth_class[row]:
        return f"the detection here, {found} (IoU {overlap[best]:.2f}), is matched to another object"
    return f"nearest detection: {found} (IoU {overlap[best]:.2f})"


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) IoU of one box (4,) with others (n, 4), all `xyxy`; 0 where there is no area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.divide(common, union, out=np.zeros(len(others)), where=union > 0)


def _name(columns: MatchColumns, number: int) -> str:
    return columns.class_names[int(number)]
