"""LVIS' federated average precision: `lvis_evaluate`.

Not every image was searched for every category. An image's `neg_category_ids` are certainly absent; those it has
objects of are present; of all others nothing is known, and detections of them are ignored. Where a category is in
`not_exhaustive_category_ids` some objects may be missing, so an unmatched detection is not wrong. An image may give
300 detections over all categories. Objects of area 0, and among those 300 detections of area 0, are dropped. Matching,
precision and recall are COCO's, without crowds.
Source: Gupta et al., "LVIS", arXiv:1908.03195, section 2, and the behavior of the package lvis 0.5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vertebra_eval.coco import (
    CocoParams,
    CocoResult,
    DetectionColumns,
    GroundTruthColumns,
    evaluate_columns,
    read_detections,
    read_ground_truth,
)
from vertebra_eval.coco.data import CocoData, read_coco
from vertebra_eval.coco.numbers import odd_detections
from vertebra_eval.coco.order import rank_detections
from vertebra_eval.errors import DataError

__all__ = ["Federation", "LVISNumbers", "lvis_evaluate", "lvis_numbers"]

_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
_MOST_IMAGES = {"r": 10, "c": 100}  # training images of a rare and of a common category
_AREAS = {"s": "small", "m": "medium", "l": "large"}


class LVISNumbers(dict):
    """`<task>/AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `APr`, `APc`, `APf`, `AR`, `ARs`, `ARm`, `ARl`, `AP-<class>`.

    Args:
        reasons: one sentence for each metric that is None. notes: what was dropped or assumed.
        result: the full arrays.
    """

    def __init__(
        self, metrics: dict[str, float | None], reasons: dict[str, str], notes: list[str], result: CocoResult
    ) -> None:
        super().__init__(metrics)
        self.reasons = reasons
        self.notes = notes
        self.result = result


@dataclass
class Federation:
    """What is known of which image, for I images and K categories numbered as in the columns.

    Args:
        absent, incomplete: (P, 2) int, pairs of image and category: `neg_category_ids`, `not_exhaustive_category_ids`.
        frequency: (K,) r, c or f; None where unknown.
    """

    absent: np.ndarray
    incomplete: np.ndarray
    frequency: Sequence[str | None]

    @classmethod
    def of(cls, data: CocoData, image_ids: Sequence, category_ids: Sequence) -> Federation:
        """From a file's images and categories, which may be more than those with the given ids, numbers 0 on.

        Raises:
            DataError: a category that is not among `category_ids`.
        """
        row = {key: number for number, key in enumerate(image_ids)}
        number = {key: k for k, key in enumerate(category_ids)}
        pairs: dict[str, list] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for place, lists in data.images.lists.items():
            image = data.images.ids[place]
            for name, found in pairs.items():
                for key in lists[name] if image in row else ():
                    if key not in number and key in data.categories.rows:
                        continue  # a category that is not evaluated
                    if key not in number:
                        raise DataError(
                            f"image {image!r}: {name} has {key!r}, which is not the id of a category; they look "
                            f"like {', '.join(map(repr, list(category_ids)[:3])) or 'nothing, there are none'}"
                        )
                    found.append((row[image], number[key]))
        of_id = dict(zip(data.categories.ids, map(_frequency, data.categories.records), strict=True))
        frequency = [of_id.get(key) for key in category_ids]
        absent, incomplete = (np.array(found, np.int64).reshape(-1, 2) for found in pairs.values())
        return cls(absent, incomplete, frequency)


def lvis_evaluate(gt: Any, dt: Any, task: str = "bbox") -> LVISNumbers:
    """LVIS' average precision.

    Args:
        gt: path of LVIS ground truth, or the dict in it.
        dt: path of results in COCO's format, or the list in it.
        task: bbox or segm.
    """
    data = read_coco(gt)
    truth = read_ground_truth(data, task, ignored_by=("ignore",))
    federation = Federation.of(data, truth.image_ids, truth.category_ids)
    detections = read_detections(dt, truth, task)
    numbers = lvis_numbers(truth, detections, federation, task)
    numbers.notes += [*truth.notes, *detections.notes, *odd_detections(truth, detections, task)]
    return numbers


def lvis_numbers(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    federation: Federation,
    task: str = "bbox",
    *,
    max_dets: int = 300,
) -> LVISNumbers:
    """The same of columns.

    Args:
        max_dets: detections of an image, over all categories.
    """
    if task not in ("bbox", "segm"):
        raise DataError(f"task is {task!r}; LVIS has bbox and segm")
    rows = np.arange(len(detections))
    rows = rank_detections(rows, detections.image, detections.scores, truth.num_images, max_dets).rows
    given, K = detections.take(np.sort(rows)).with_areas(task), truth.num_categories
    notes: list[str] = []
    sized, large = truth.areas > 0, np.asarray(given.areas) > 0
    for keep, what in ((sized, "ground-truth objects"), (large, "detections")):
        if not keep.all():
            notes.append(f"{(~keep).sum()} of {len(keep)} {what} have an area of 0 or less, and LVIS drops these")
    truth, given = truth.take(np.flatnonzero(sized)), given.take(np.flatnonzero(large))
    pair = given.image * K + given.category
    present = truth.image * K + truth.category
    absent, incomplete = (pairs[:, 0] * K + pairs[:, 1] for pairs in (federation.absent, federation.incomplete))
    judged = given.take(np.flatnonzero(np.isin(pair, np.concatenate([present, absent]))))
    unsure = np.isin(judged.image * K + judged.category, incomplete)
    judged.areas = np.where(
        unsure, np.inf, np.asarray(judged.areas)
    )  # in no area range, so unmatched it does not count
    whole = replace(truth, crowd=np.zeros(len(truth), bool))
    result = evaluate_columns(whole, judged, task, CocoParams.for_task(task, max_dets=(max_dets,)))
    metrics, reasons = _metrics(result, truth, federation.frequency, task)
    left_out = len(given) - len(judged)
    if left_out:
        notes.append(
            f"{left_out} of {len(given)} detections are of categories that their image was not annotated for; they "
            "are ignored"
        )
    return LVISNumbers(metrics, reasons, notes, result)


def _metrics(
    result: CocoResult, truth: GroundTruthColumns, frequency: Sequence[str | None], task: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    thresholds, areas = result.params.iou_thresholds, list(result.params.area_ranges)
    found: dict[str, tuple[np.ndarray, str]] = {}  # name -> numbers to average, -1 undefined; what is missing
    precision, recall = result.precision[..., 0], result.recall[..., 0]  # (T, R, K, A), (T, K, A)
    found["AP"] = precision[..., 0], "objects"
    for iou in (50, 75):
        found[f"AP{iou}"] = precision[np.isclose(thresholds, iou / 100), ..., 0], "objects"
    for short, name in _AREAS.items():
        found[f"AP{short}"] = precision[..., areas.index(name)], f"{name} objects"
    for short, name in _GROUPS.items():
        own = [k for k, group in enumerate(frequency) if group == short]
        what = f"objects of a {name} category" if own else f"categories that are known to be {name}"
        found[f"AP{short}"] = precision[:, :, own, 0], what
    found["AR"] = recall[..., 0], "objects"
    for short, name in _AREAS.items():
        found[f"AR{short}"] = recall[..., areas.index(name)], f"{name} objects"
    by_class = np.ascontiguousarray(precision[..., 0].transpose(2, 0, 1))  # else each class is spread over all of it
    for numbers, name in zip(by_class, truth.category_names, strict=True):
        found[f"AP-{name}"] = numbers, f"objects of class {name}"
    metrics: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, (numbers, what) in found.items():
        defined = numbers[numbers > -1]
        metrics[f"{task}/{name}"] = float(np.mean(defined)) if defined.size else None
        if not defined.size:
            reasons[f"{task}/{name}"] = f"the ground truth has no {what}"
    return metrics, reasons


def _frequency(category: dict) -> str | None:
    """r, c or f, as written or by the number of training images."""
    if category.get("frequency") in _GROUPS or category.get("image_count") is None:
        return category.get("frequency")
    return next((group for group, most in _MOST_IMAGES.items() if category["image_count"] <= most), "f")
