"""pycocotools' `evalImgs` out of the table of matches: one dict for each category, area range and image.

The arrays in the dicts are views of one array for all images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra_eval.coco import CocoResult
from vertebra_eval.pycocotools.columns import EvalColumns, category_ids

__all__ = ["images_of_result"]


def images_of_result(result: CocoResult, columns: EvalColumns, params: Any) -> list[dict | None]:
    """Category after category, in each area range after area range, in each image after image; None where an image has
    neither objects nor detections of a category.

    Letters: n detections that took part, G objects, T IoU thresholds, A area ranges.

    Args:
        params: pycocotools' Params of the evaluation.
    """
    truth, detections, matches = columns.truth, columns.detections, result.matches
    own_category = columns.present if params.useCats else np.zeros(len(columns.present), np.int64)  # all are one
    I, A, K = len(params.imgIds), len(params.areaRng), len(category_ids(params))
    cell_of_detection = (own_category[detections.category] * I + detections.image)[matches.detection]
    order = np.lexsort((matches.rank, cell_of_detection))
    rows = matches.detection[order]
    ids, scores = columns.detection_ids[rows].tolist(), detections.scores[rows].tolist()
    cell_of_truth = own_category[truth.category] * I + truth.image
    cells = np.unique(np.concatenate([cell_of_detection, cell_of_truth]))
    spans = _spans(np.sort(cell_of_detection), cells)
    truth_spans = _spans(np.sort(cell_of_truth), cells)
    found: list[dict | None] = [None] * (K * A * I)
    for a, area_range in enumerate(params.areaRng):
        truth_order = np.lexsort((truth.category, matches.truth_ignored[a], cell_of_truth))  # what counts comes first
        truth_ids = truth.annotation_ids[truth_order].tolist()
        ignored_truth = matches.truth_ignored[a][truth_order].astype(np.int64)
        matched, matched_truth = _matched_ids(matches.matched(a)[order], columns, rows, truth_order)
        ignored = np.ascontiguousarray(matches.ignored(a)[order].T)  # (T, n)
        for cell, (start, end), (first, last) in zip(cells.tolist(), spans, truth_spans, strict=True):
            category, image = divmod(cell, I)
            found[(category * A + a) * I + image] = {
                "image_id": params.imgIds[image],
                "category_id": category_ids(params)[category],
                "aRng": area_range,
                "maxDet": params.maxDets[-1],
                "dtIds": ids[start:end],
                "gtIds": truth_ids[first:last],
                "dtMatches": matched[:, start:end],
                "gtMatches": matched_truth[:, first:last],
                "dtScores": scores[start:end],
                "gtIgnore": ignored_truth[first:last],
                "dtIgnore": ignored[:, start:end],
            }
    return found


def _matched_ids(
    matched: np.ndarray, columns: EvalColumns, rows: np.ndarray, truth_order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T, n) ids of the objects matched to detections, (T, G) ids of the detections matched to objects; 0 for none.

    Args:
        matched: (n, T) rows of objects, or -1; detections of one image and category by rank.
        rows: (n,) of the detections. truth_order: (G,) rows of the objects in their new order.
    """
    of_detections = np.append(columns.truth.annotation_ids, 0).astype(np.float64)[matched.T]  # -1 finds the 0
    place = np.empty_like(truth_order)
    place[truth_order] = np.arange(len(truth_order))
    of_truth = np.zeros((matched.shape[1], len(truth_order)))
    which, threshold = np.nonzero(matched >= 0)
    of_truth[threshold, place[matched[which, threshold]]] = columns.detection_ids[rows[which]]  # a crowd: the last one
    return of_detections, of_truth


def _spans(sorted_cells: np.ndarray, cells: np.ndarray) -> list[tuple[int, int]]:
    starts = np.searchsorted(sorted_cells, cells, side="left").tolist()
    return list(zip(starts, np.searchsorted(sorted_cells, cells, side="right").tolist(), strict=True))
