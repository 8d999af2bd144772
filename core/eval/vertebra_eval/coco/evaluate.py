"""COCO evaluation of columns: `evaluate_columns`, all categories at once."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from vertebra_eval.coco.accumulate import accumulate
from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns, can_be_ranked
from vertebra_eval.coco.match import Candidates, match_candidates
from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.order import RankedDetections, pairs_of_images, rank_detections, runs_of, stable_argsort
from vertebra_eval.coco.overlap import PAIRS_AT_ONCE, pair_overlaps
from vertebra_eval.coco.params import HIGHEST_THRESHOLD, CocoParams
from vertebra_eval.coco.result import CocoResult
from vertebra_eval.errors import DataError
from vertebra_eval.masks.boundary import boundary_column

__all__ = ["evaluate_columns"]

_Columns = TypeVar("_Columns", GroundTruthColumns, DetectionColumns)


def evaluate_columns(
    truth: GroundTruthColumns, detections: DetectionColumns, task: str, params: CocoParams | None = None
) -> CocoResult:
    """Average precision and recall as COCO defines them, with pycocotools' arrays.

    One difference: for keypoints without categories (`use_categories=False`) pycocotools matches nothing at all; here
    the categories are pooled as for boxes.

    Args:
        task: bbox, segm, boundary or keypoints. params: None: COCO's own for the task.

    Raises:
        DataError: numbers of images or categories out of range, scores that are NaN, columns the task needs.
    """
    params = params or CocoParams.for_task(task)
    _check(truth, detections, task)
    detections = detections.with_areas(task)
    if task == "boundary":
        truth, detections = _with_boundaries(truth), _with_boundaries(detections)
    category = _categories(truth, detections, params)
    ranked = rank_detections(
        _in_order(detections.category, category, truth.num_categories),
        detections.image,
        detections.scores,
        truth.num_images,
        params.max_dets[-1],
        category=category.of_detections,
        num_categories=category.number,
    )
    rows = _in_order(truth.category, category, truth.num_categories)
    key = category.of_truth.astype(np.int64) * truth.num_images + truth.image
    rows = rows[stable_argsort(key[rows], category.number * truth.num_images)]
    candidate, pairs = _candidates(truth, detections, task, params, ranked, rows, key[rows])
    matches = _match(truth, detections, params, ranked, candidate, pairs, rows)
    num_truth = np.zeros((category.number, len(params.areas)), np.int64)
    for area, ignored in enumerate(matches.truth_ignored):
        num_truth[:, area] = np.bincount(category.of_truth[~ignored], minlength=category.number)
    bounds = np.searchsorted(ranked.category, np.arange(category.number + 1))
    precision, recall, scores = accumulate(matches, bounds, num_truth, params)
    return CocoResult(
        task=task,
        params=params,
        precision=precision,
        recall=recall,
        scores=scores,
        num_truth=num_truth,
        num_ignored=np.bincount(category.of_truth[truth.ignored], minlength=category.number),
        num_detections=np.bincount(category.of_detections, minlength=category.number),
        matches=matches,
    )


class _Categories(NamedTuple):
    """Numbers of the categories that are evaluated by themselves: all, or one for all of them."""

    number: int
    of_truth: np.ndarray
    of_detections: np.ndarray


def _categories(truth: GroundTruthColumns, detections: DetectionColumns, params: CocoParams) -> _Categories:
    if params.use_categories:
        return _Categories(truth.num_categories, truth.category, detections.category)
    return _Categories(1, np.zeros(len(truth), np.int64), np.zeros(len(detections), np.int64))


def _in_order(given: np.ndarray, category: _Categories, num_categories: int) -> np.ndarray:
    """Rows as they came; pooled, those of an image are in the order of their categories."""
    return np.arange(len(given)) if category.number == num_categories else stable_argsort(given, num_categories)


def _with_boundaries(columns: _Columns) -> _Columns:
    return columns if columns.masks is None else replace(columns, boundaries=boundary_column(columns.masks))


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
    if not can_be_ranked(detections.scores).all():
        raise DataError(f"{detections.source}: a score is NaN; remove such detections")
    needed = {"segm": "masks", "boundary": "masks", "keypoints": "keypoints"}.get(task)
    if needed and any(len(part) and getattr(part, needed) is None for part in (truth, detections)):
        raise DataError(f"task {task} needs a column of {needed} in both {truth.source} and {detections.source}")


def _candidates(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    task: str,
    params: CocoParams,
    ranked: RankedDetections,
    truth_rows: np.ndarray,
    truth_keys: np.ndarray,
) -> tuple[np.ndarray, Candidates]:
    """Positions (S,) of the candidates, ascending, and their pairs, by places in `truth_rows`.

    Args:
        truth_rows: rows of the ground truth, category after category, in each image after image. truth_keys: of both.
    """
    lowest = min(params.iou_thresholds.min(), HIGHEST_THRESHOLD)
    positions, partners, overlaps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for position, which in pairs_of_images(ranked, truth_keys, PAIRS_AT_ONCE[task]):
        overlap = pair_overlaps(truth, detections, task, params, ranked.rows[position], truth_rows[which])
        enough = overlap >= lowest
        positions.append(position[enough])
        partners.append(which[enough])
        overlaps.append(overlap[enough])
    position = np.concatenate(positions)
    is_chosen = np.zeros(len(ranked.rows), bool)
    is_chosen[position] = True
    chosen = np.flatnonzero(is_chosen)
    number = (np.cumsum(is_chosen) - 1)[position]
    turn = np.empty(len(chosen), np.int64)
    order = stable_argsort(ranked.key[chosen], ranked.num_keys)  # positions ascend by rank within an image
    starts, counts = runs_of(ranked.key[chosen][order])
    turn[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return chosen, Candidates(turn, number, np.concatenate(partners), np.concatenate(overlaps))


def _match(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    params: CocoParams,
    ranked: RankedDetections,
    candidate: np.ndarray,
    pairs: Candidates,
    truth_rows: np.ndarray,
) -> Matches:
    truth_ignored = truth.ignored | _outside(truth.areas, params.areas)  # (A, G)
    taken = match_candidates(pairs, params.iou_thresholds, truth_ignored[:, truth_rows], truth.crowd[truth_rows])
    taken = np.append(truth_rows, -1).astype(np.int32)[taken]  # places to rows; no match, -1, finds the end
    return Matches(
        objects=truth,
        detections=detections,
        iou_thresholds=params.iou_thresholds,
        detection=ranked.rows,
        rank=ranked.rank,
        candidate=candidate,
        truth=taken.reshape(len(taken), len(params.areas), len(params.iou_thresholds)),
        outside=_outside(np.asarray(detections.areas)[ranked.rows], params.areas),
        truth_ignored=truth_ignored,
        is_nothing=truth.annotation_ids == 0,
        is_pooled=not params.use_categories,
    )


def _outside(areas: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(A, rows) bool, areas below or above each range."""
    return (areas < ranges[:, :1]) | (areas > ranges[:, 1:])
