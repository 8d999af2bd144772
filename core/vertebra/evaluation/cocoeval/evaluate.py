"""COCO evaluation of columns: `evaluate_columns`, category by category, with one matching for all of them."""

from __future__ import annotations

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.cocoeval.accumulate import CategoryMatches, category_curves
from vertebra.evaluation.cocoeval.columns import DetectionColumns, GroundTruthColumns
from vertebra.evaluation.cocoeval.match import Candidates, match_candidates
from vertebra.evaluation.cocoeval.order import RankedDetections, pairs_of_images, rank_detections, stable_argsort
from vertebra.evaluation.cocoeval.overlap import PAIRS_AT_ONCE, pair_overlaps
from vertebra.evaluation.cocoeval.params import CocoParams
from vertebra.evaluation.cocoeval.result import CocoResult, DetectionMatches

__all__ = ["evaluate_columns"]


def evaluate_columns(
    truth: GroundTruthColumns, detections: DetectionColumns, task: str, params: CocoParams | None = None
) -> CocoResult:
    """Average precision and recall as COCO defines them, with pycocotools' arrays.

    One difference: for keypoints without categories (`use_categories=False`) pycocotools matches nothing at all; here
    the categories are pooled as for boxes.

    Args:
        task: bbox, segm or keypoints. params: None: COCO's own for the task.

    Raises:
        DataError: numbers of images or categories out of range, scores that are not finite, columns the task needs.
    """
    params = params or CocoParams.for_task(task)
    _check(truth, detections, task)
    pooled = not params.use_categories
    num_categories = 1 if pooled else truth.num_categories
    truth_rows, truth_bounds = _partition(truth.image, truth.category, truth.num_images, truth.num_categories, pooled)
    rows, bounds = _partition(
        detections.image, detections.category, truth.num_images, truth.num_categories, pooled, by_image=False
    )
    ranked, found = [], []
    for k in range(num_categories):
        own = rows[bounds[k] : bounds[k + 1]]
        ranked.append(
            rank_detections(own, detections.image[own], detections.scores[own], truth.num_images, params.max_dets[-1])
        )
        span = slice(truth_bounds[k], truth_bounds[k + 1])
        found.append(_candidates(truth, detections, task, params, ranked[k], truth_rows, span))
    areas = params.areas
    truth_ignored = truth.ignored | _outside(truth.areas, areas)  # (A, G)
    matches, sizes = _match(truth, detections, params, ranked, found, truth_ignored, truth_rows)
    num_truth = np.array(
        [
            np.count_nonzero(~truth_ignored[:, truth_rows[truth_bounds[k] : truth_bounds[k + 1]]], axis=1)
            for k in range(num_categories)
        ]
    ).reshape(num_categories, len(areas))
    curves, start, first = [], 0, 0
    for k in range(num_categories):
        end, last = start + len(ranked[k].rows), first + sizes[k]
        met, ignored = matches.candidate_state(slice(first, last))
        own = CategoryMatches(matches.candidate[first:last] - start, met, ignored)
        curves.append(category_curves(ranked[k], matches.outside[:, start:end], own, num_truth[k], params))
        start, first = end, last
    T, R, A, M = len(params.iou_thresholds), len(params.recall_thresholds), len(areas), len(params.max_dets)
    nothing = [np.zeros((T, R, 0, A, M))]
    category = np.zeros(len(truth), np.int64) if pooled else truth.category
    return CocoResult(
        task=task,
        params=params,
        precision=np.concatenate([*nothing, *(curve.precision[:, :, None] for curve in curves)], axis=2),
        recall=np.concatenate([nothing[0][:, 0], *(curve.recall[:, None] for curve in curves)], axis=1),
        scores=np.concatenate([*nothing, *(curve.scores[:, :, None] for curve in curves)], axis=2),
        num_truth=num_truth,
        num_ignored=np.bincount(category[truth.ignored], minlength=num_categories),
        num_detections=np.diff(bounds),
        matches=matches,
    )


def _check(truth: GroundTruthColumns, detections: DetectionColumns, task: str) -> None:
    for name, column, count in (
        ("image", detections.image, truth.num_images),
        ("category", detections.category, truth.num_categories),
    ):
        if len(column) and not (column.min() >= 0 and column.max() < count):
            wrong = column[(column < 0) | (column >= count)][0]
            raise DataError(
                f"{detections.source}: column {name} has the number {wrong}, but {truth.source} has {count}"
            )
    if not np.isfinite(detections.scores).all():
        raise DataError(f"{detections.source}: a score is NaN or infinite; leave such detections out")
    needed = {"segm": "masks", "keypoints": "keypoints"}.get(task)
    if needed and any(len(part) and getattr(part, needed) is None for part in (truth, detections)):
        raise DataError(f"task {task} needs a column of {needed} in both {truth.source} and {detections.source}")


def _partition(
    image: np.ndarray, category: np.ndarray, num_images: int, num_categories: int, pooled: bool, by_image: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Rows category after category, in each image after image if asked, else as they came; and (K + 1,) bounds.

    Pooled there is one category, in which an image's rows are in the order of their categories.
    """
    order = stable_argsort(category, num_categories) if pooled else np.arange(len(image))
    if by_image or pooled:
        order = order[stable_argsort(image[order], num_images)]
    if pooled:
        return order, np.array([0, len(order)])
    order = order[stable_argsort(category[order], num_categories)]
    return order, np.concatenate([[0], np.cumsum(np.bincount(category, minlength=num_categories))])


def _candidates(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    task: str,
    params: CocoParams,
    ranked: RankedDetections,
    truth_rows: np.ndarray,
    span: slice,
) -> tuple[np.ndarray, Candidates]:
    """Positions (S,) of one category's candidates, ascending, and their pairs, by places in `truth_rows`.

    Args:
        truth_rows: rows of the ground truth, category after category, in each image after image.
        span: where in them the category lies.
    """
    objects = truth_rows[span]
    lowest = min(params.iou_thresholds.min(), 1 - 1e-10)
    positions, partners, overlaps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for position, which in pairs_of_images(ranked, truth.image[objects], PAIRS_AT_ONCE[task]):
        overlap = pair_overlaps(truth, detections, task, params, ranked.rows[position], objects[which])
        enough = overlap >= lowest
        positions.append(position[enough])
        partners.append(span.start + which[enough])
        overlaps.append(overlap[enough])
    position = np.concatenate(positions)
    chosen, number = np.unique(position, return_inverse=True)
    turn = np.empty(len(chosen), np.int64)
    order = stable_argsort(ranked.image[chosen], truth.num_images)  # positions ascend by rank within an image
    image = ranked.image[chosen][order]
    new = np.concatenate([[True], image[1:] != image[:-1]]) if len(image) else np.zeros(0, bool)
    turn[order] = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    return chosen, Candidates(turn, number, np.concatenate(partners), np.concatenate(overlaps))


def _match(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    params: CocoParams,
    ranked: list[RankedDetections],
    found: list[tuple[np.ndarray, Candidates]],
    truth_ignored: np.ndarray,
    truth_rows: np.ndarray,
) -> tuple[DetectionMatches, list[int]]:
    """Match the candidates of all categories together; also gives how many candidates each category has."""
    sizes = [len(positions) for positions, _ in found]
    candidate_offset = np.cumsum([0, *sizes])
    detection_offset = np.cumsum([0, *(len(one.rows) for one in ranked)])
    nothing = np.zeros(0, np.int64)
    together = Candidates(
        turn=np.concatenate([nothing, *(c.turn for _, c in found)]),
        detection=np.concatenate([nothing, *(c.detection + candidate_offset[k] for k, (_, c) in enumerate(found))]),
        truth=np.concatenate([nothing, *(c.truth for _, c in found)]),
        overlap=np.concatenate([np.zeros(0), *(c.overlap for _, c in found)]),
    )
    taken = match_candidates(together, params.iou_thresholds, truth_ignored[:, truth_rows], truth.crowd[truth_rows])
    if len(truth_rows):
        taken = np.where(taken >= 0, truth_rows[taken], -1).astype(np.int32)
    detection = np.concatenate([nothing, *(one.rows for one in ranked)])
    matches = DetectionMatches(
        detection=detection,
        rank=np.concatenate([np.zeros(0, np.int32), *(one.rank for one in ranked)]),
        candidate=np.concatenate([nothing, *(p + detection_offset[k] for k, (p, _) in enumerate(found))]),
        truth=taken.reshape(len(taken), len(params.areas), len(params.iou_thresholds)),
        outside=_outside(detections.areas[detection], params.areas),
        truth_ignored=truth_ignored,
        is_nothing=truth.annotation_ids == 0,
    )
    return matches, sizes


def _outside(areas: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(A, rows) bool, areas below or above each range."""
    return (areas < ranges[:, :1]) | (areas > ranges[:, 1:])
