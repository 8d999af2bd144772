"""Panoptic, segmentation and recognition quality out of the counts of all images.

Source: Kirillov et al., "Panoptic Segmentation", arXiv:1801.00868: PQ = SQ x RQ, each the mean over the classes that
occur in ground truth or prediction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vertebra_eval.panoptic.counts import ImageCounts

__all__ = ["ClassQuality", "GroupQuality", "PanopticClass", "PanopticQuality", "panoptic_quality"]


@dataclass(frozen=True)
class PanopticClass:
    """One class: what files call it (`category_id`), its name, and whether its objects are counted (a thing)."""

    category_id: int
    name: str
    isthing: bool


@dataclass(frozen=True)
class ClassQuality:
    """One class over all images; pq, sq, rq are None where it occurs neither in ground truth nor in predictions.

    Args:
        iou_sum: IoU summed over the true positives.
    """

    name: str
    isthing: bool
    tp: int
    fp: int
    fn: int
    iou_sum: float
    pq: float | None
    sq: float | None
    rq: float | None


@dataclass(frozen=True)
class GroupQuality:
    """Mean over the `n` classes of a group that occur; None if there is none."""

    pq: float | None
    sq: float | None
    rq: float | None
    n: int


@dataclass
class PanopticQuality:
    """The numbers of a panoptic evaluation.

    Args:
        all, things, stuff: means over classes.
        per_class: by category id, all classes of the dataset.
        metrics: the same as flat keys `panoptic/PQ`, `panoptic/PQ_things`, `panoptic/PQ-<class>`, ...
        reasons: one sentence for each metric that is None.
        notes: what one should know before trusting the numbers.
        classes, counts: what it was made of. images: names of the images, where they are known.
    """

    all: GroupQuality
    things: GroupQuality
    stuff: GroupQuality
    per_class: dict[int, ClassQuality]
    metrics: dict[str, float | None]
    reasons: dict[str, str]
    notes: list[str]
    classes: Sequence[PanopticClass]
    counts: Sequence[ImageCounts]
    images: Sequence[str] = ()


def panoptic_quality(classes: Sequence[PanopticClass], images: Iterable[ImageCounts]) -> PanopticQuality:
    """Add up the images, in their order, and divide.

    Args:
        classes: their rows are the class numbers in the counts.
    """
    images = list(images)
    size = len(classes)
    matched = _joined([image.matched for image in images]).astype(np.int64)
    iou = _joined([image.iou for image in images])
    tp = np.bincount(matched, minlength=size)
    iou_sum = np.bincount(matched, weights=iou, minlength=size)
    fp, fn = (
        np.bincount(_joined(columns).astype(np.int64), minlength=size)
        for columns in ([image.false for image in images], [image.missed for image in images])
    )
    rows = [
        _class_quality(known, int(tp[i]), int(fp[i]), int(fn[i]), float(iou_sum[i])) for i, known in enumerate(classes)
    ]
    groups = {
        "": _mean(rows),
        "_things": _mean([row for row in rows if row.isthing]),
        "_stuff": _mean([row for row in rows if not row.isthing]),
    }
    metrics, reasons = _flat(groups, rows, _labels(classes))
    odd = sum(image.odd_areas for image in images)
    notes = []
    if odd:
        notes.append(
            f"{odd} ground truth segments have an annotated area that is not the number of their pixels; "
            "the annotated area is used, as panopticapi does"
        )
    per_class = {known.category_id: row for known, row in zip(classes, rows, strict=True)}
    of_groups = groups[""], groups["_things"], groups["_stuff"]
    return PanopticQuality(*of_groups, per_class, metrics, reasons, notes, classes, images)


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *columns])


def _class_quality(known: PanopticClass, tp: int, fp: int, fn: int, iou_sum: float) -> ClassQuality:
    weight = tp + 0.5 * fp + 0.5 * fn
    pq, sq, rq = (iou_sum / weight, iou_sum / tp if tp else 0.0, tp / weight) if weight else (None, None, None)
    return ClassQuality(known.name, known.isthing, tp, fp, fn, iou_sum, pq, sq, rq)


def _mean(rows: Sequence[ClassQuality]) -> GroupQuality:
    found = [row for row in rows if row.pq is not None]
    if not found:
        return GroupQuality(None, None, None, 0)
    pq, sq, rq = (sum(getattr(row, name) for row in found) / len(found) for name in ("pq", "sq", "rq"))
    return GroupQuality(pq, sq, rq, len(found))


def _flat(
    groups: dict[str, GroupQuality], rows: Sequence[ClassQuality], labels: Sequence[str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The metrics by flat keys, and the reasons of those that are None."""
    metrics: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    kinds = {"": "class", "_things": "thing class", "_stuff": "stuff class"}
    for suffix, group in groups.items():
        for name in ("PQ", "SQ", "RQ"):
            metrics[f"panoptic/{name}{suffix}"] = getattr(group, name.lower())
            if not group.n:
                reasons[f"panoptic/{name}{suffix}"] = (
                    f"no {kinds[suffix]} occurs in the ground truth or in the predictions"
                )
    for label, row in zip(labels, rows, strict=True):
        for name in ("PQ", "SQ", "RQ"):
            metrics[f"panoptic/{name}-{label}"] = getattr(row, name.lower())
            if row.pq is None:
                reasons[f"panoptic/{name}-{label}"] = (
                    "the class has no segment that counts in the ground truth or in the predictions"
                )
    return metrics, reasons


def _labels(classes: Sequence[PanopticClass]) -> list[str]:
    """Names as metric keys need them: one that two classes share is told apart by its category id."""
    times = Counter(known.name for known in classes)
    return [known.name if times[known.name] == 1 else f"{known.name} ({known.category_id})" for known in classes]
