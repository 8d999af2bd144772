"""The annotations that pycocotools' COCOeval gathers, dicts by image and category, as columns.

Only what the evaluation of columns counts exactly as pycocotools does becomes columns; the rest is `Unusual`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from vertebra_eval.coco import COCO_TASKS, CocoParams, DetectionColumns, GroundTruthColumns, MaskColumn

__all__ = ["EvalColumns", "Unusual", "category_ids", "columns_of"]

Cells = Mapping[tuple[Any, Any], list[dict]]
_INTEGERS = {int, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32}
_NARROW = {np.float16, np.float32}
_WIDE = {int, float, np.int64, np.float64}  # pycocotools' arithmetic with them neither wraps around nor rounds more
_NUMBERS = _INTEGERS | _WIDE
_FARTHEST = 1e75  # of a box: its area, and a sum of areas, stay finite
_FARTHEST_POINT = 2.0**25  # of a keypoint: sums of squares of integers stay exact in a double
_MOST_EXACT = 2.0**53


class Unusual(Exception):
    """pycocotools' own code has to evaluate this."""


@dataclass
class EvalColumns:
    """What `evaluate_columns` takes, and where its categories lie among pycocotools'.

    Args:
        present: (k,) which of the K category ids have objects or detections; only those are in the columns.
        detection_ids: (D,) int64.
    """

    params: CocoParams
    truth: GroundTruthColumns
    detections: DetectionColumns
    present: np.ndarray
    detection_ids: np.ndarray


def category_ids(params: Any) -> list:
    """The categories that arrays and `evalImgs` have: [-1] where all are pooled."""
    return params.catIds if params.useCats else [-1]


def columns_of(params: Any, truth: Cells, detections: Cells) -> EvalColumns:
    """Columns of all that takes part.

    Args:
        params: pycocotools' Params, ids sorted as `evaluate` does it.
        truth, detections: dicts by (image id, category id).

    Raises:
        Unusual, and whatever unexpected values raise: leave it to pycocotools.
    """
    chosen, task = _params(params), params.iouType
    image_numbers = {key: number for number, key in enumerate(params.imgIds)}
    category_numbers = {key: number for number, key in enumerate(params.catIds)}
    _refuse(len(category_numbers) < len(params.catIds), "pooled categories that are named twice")
    image, category, records = _rows(truth, image_numbers, category_numbers)
    found_image, found_category, found = _rows(detections, image_numbers, category_numbers)
    present = np.arange(len(params.catIds))
    if params.useCats:
        present = np.unique(np.concatenate([category, found_category]))
        category, found_category = np.searchsorted(present, category), np.searchsorted(present, found_category)
    limits = chosen.areas.reshape(-1).tolist()
    crowd = np.array([int(record["iscrowd"]) for record in records], np.int64)
    _refuse(((crowd < 0) | (crowd > 255)).any(), "iscrowd beyond a byte")
    areas = _numbers([record["area"] for record in records], limits)
    points, found_points = None, None
    if task == "keypoints":
        points, found_points = _keypoints(records, chosen.sigmas), _keypoints(found, chosen.sigmas)
        _refuse(not (np.isfinite(areas) & (areas >= 0)).all(), "areas that give no similarity")
    scores = _numbers([record["score"] for record in found], kinds=_WIDE | _NARROW)
    detection_ids = _integers([record["id"] for record in found])
    _refuse(np.isnan(scores).any(), "scores that are NaN")
    _refuse((detection_ids <= 0).any(), "ids of detections that stand for no match")
    ids = [params.catIds[number] for number in present.tolist()]
    return EvalColumns(
        params=chosen,
        truth=GroundTruthColumns(
            image=image,
            category=category,
            boxes=_boxes(records, task),
            areas=areas,
            crowd=crowd > 0,
            ignored=np.array([bool(record["ignore"]) for record in records], bool),
            annotation_ids=_integers([record["id"] for record in records]),
            image_ids=params.imgIds,
            category_ids=ids,
            category_names=[str(key) for key in ids],
            masks=_masks(records) if task == "segm" else None,
            keypoints=points,
        ),
        detections=DetectionColumns(
            image=found_image,
            category=found_category,
            boxes=_boxes(found, "bbox") if task == "bbox" else np.zeros((len(found), 4)),
            areas=_numbers([record["area"] for record in found], limits),
            scores=scores,
            masks=_masks(found) if task == "segm" else None,
            keypoints=found_points,
        ),
        present=present,
        detection_ids=detection_ids,
    )


def _params(params: Any) -> CocoParams:
    """pycocotools' parameters; area ranges are named by their number."""
    _refuse(params.iouType not in COCO_TASKS, "the kind of IoU")
    _refuse(len(params.imgIds) == 0 or len(params.catIds) == 0, "no ids, which getAnnIds takes for all")
    more = {}
    if params.iouType == "keypoints":
        _refuse(not params.useCats, "keypoints of pooled categories, which pycocotools does not match")
        sigmas = params.kpt_oks_sigmas
        _refuse(not isinstance(sigmas, np.ndarray) or sigmas.dtype != np.float64 or sigmas.ndim != 1, "sigmas")
        _refuse(not (np.isfinite(sigmas) & (sigmas > 0)).all(), "sigmas")
        more["sigmas"] = sigmas
    thresholds, recalls = np.asarray(params.iouThrs), np.asarray(params.recThrs)
    _refuse(thresholds.ndim != 1 or thresholds.dtype not in (np.float64, np.int64), "IoU thresholds")
    _refuse(recalls.ndim != 1 or recalls.dtype.kind not in "fi", "recall thresholds")
    _integers(params.maxDets)
    ranges = [_numbers([area_range[0], area_range[1]]).tolist() for area_range in params.areaRng]
    return CocoParams(
        iou_thresholds=thresholds,
        recall_thresholds=recalls,
        area_ranges={str(number): (low, high) for number, (low, high) in enumerate(ranges)},
        max_dets=params.maxDets,
        use_categories=bool(params.useCats),
        **more,
    )


def _rows(cells: Cells, images: dict, categories: dict) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """(n,) int64 image and category numbers, and the n dicts; each cell's in their order."""
    own = [
        (images[image], categories[category], records)
        for (image, category), records in cells.items()
        if image in images and category in categories
    ]
    counts = [len(records) for *_, records in own]
    numbers = np.array([place[:2] for place in own], np.int64).reshape(-1, 2).repeat(counts, axis=0)
    return numbers[:, 0], numbers[:, 1], list(chain.from_iterable(records for *_, records in own))


def _refuse(wrong: Any, what: str) -> None:
    if wrong:
        raise Unusual(what)


def _check_types(values: Iterable, known: Collection[type]) -> set[type]:
    kinds = set(map(type, values))
    _refuse(not kinds <= set(known), "types of values")
    return kinds


def _integers(values: Sequence) -> np.ndarray:
    """(n,) int64."""
    _check_types(values, _INTEGERS)
    return np.fromiter(values, np.int64, len(values))


def _numbers(
    values: list, limits: Sequence[float] = (), kinds: Collection[type] = frozenset(_NUMBERS | _NARROW)
) -> np.ndarray:
    """(n,) float64.

    Args:
        limits: what the values are compared with. numpy compares in the type of a narrow value, hence they must fit.
    """
    found = _check_types(values, kinds)
    _refuse(any(float(kind(limit)) != limit for kind in found & _NARROW for limit in limits), "narrow floats")
    numbers = np.fromiter(values, np.float64, len(values))
    _refuse(found & _INTEGERS and (np.abs(numbers) >= _MOST_EXACT).any(), "integers that no double holds")
    return numbers


def _table(records: list[dict], name: str, width: int, kinds: Collection[type]) -> np.ndarray:
    """(n, width) float64 of a field that is a list or an array of numbers, as pycocotools wants it."""
    values = [record[name] for record in records]
    _check_types(values, (list, np.ndarray))
    _refuse(not set(map(len, values)) <= {width}, f"lengths of {name}")
    _check_types(chain.from_iterable(values), kinds)
    return np.fromiter(chain.from_iterable(values), np.float64, len(values) * width).reshape(-1, width)


def _boxes(records: list[dict], task: str) -> np.ndarray:
    """(n, 4) float64 xywh; zeros for segm, which does not need them."""
    if task == "segm":
        return np.zeros((len(records), 4))
    boxes = _table(records, "bbox", 4, _WIDE if task == "keypoints" else _NUMBERS | _NARROW)
    _refuse(not (np.abs(boxes) < _FARTHEST).all(), "boxes that are NaN or infinite")
    return boxes


def _keypoints(records: list[dict], sigmas: np.ndarray) -> np.ndarray:
    """(n, J, 3) float64."""
    points = _table(records, "keypoints", 3 * len(sigmas), _WIDE)
    _refuse(not (np.abs(points) < _FARTHEST_POINT).all(), "keypoints that are NaN, infinite or far away")
    return points.reshape(len(records), len(sigmas), 3)


def _masks(records: list[dict]) -> MaskColumn:
    """Compressed run lengths, which COCOeval has made of every mask."""
    masks = [record["segmentation"] for record in records]
    _check_types(masks, (dict,))
    sizes, counts = [mask["size"] for mask in masks], [mask["counts"] for mask in masks]
    _check_types(counts, (bytes, str))
    _check_types(chain.from_iterable(sizes), _INTEGERS)
    texts = [text.encode() if isinstance(text, str) else text for text in counts]
    return MaskColumn.of_encoded([{"size": size, "counts": text} for size, text in zip(sizes, texts, strict=True)])
