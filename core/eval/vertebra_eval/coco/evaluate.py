"""COCO evaluation of columns: `evaluate_columns`, category by category, with one matching for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from vertebra_eval.coco.accumulate import CategoryMatches, category_curves
from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns, can_be_ranked
from vertebra_eval.coco.match import Candidates, match_candidates
from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.order import RankedDetections, pairs_of_images, rank_detections, stable_argsort
from vertebra_eval.coco.overlap import PAIRS_AT_ONCE, pair_overlaps
from vertebra_eval.coco.params import CocoParams
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
    truth_parts = _partition(truth, truth, params.use_categories)
    detection_parts = _partition(detections, truth, params.use_categories, by_image=False)
    ranked, found = [], []
    for own, objects in zip(detection_parts.parts(), truth_parts.spans(), strict=True):
        image, scores = detections.image[own], detections.scores[own]
        ranked.append(rank_detections(own, image, scores, truth.num_images, params.max_dets[-1]))
        found.append(_candidates(truth, detections, task, params, ranked[-1], truth_parts.rows, objects))
    matches = _match(truth, detections, params, ranked, found, truth_parts.rows)
    counts = ~matches.truth_ignored  # (A, G)
    num_truth = np.array([np.count_nonzero(counts[:, own], axis=1) for own in truth_parts.parts()], dtype=np.int64)
    num_truth = num_truth.reshape(-1, len(params.areas))  # (K, A)
    curves, start, first = [], 0, 0
    for k, (positions, _) in enumerate(found):
        end, last = start + len(ranked[k].rows), first + len(positions)
        met, ignored = matches.candidate_state(slice(first, last))
        outside = matches.outside[:, start:end]
        state = CategoryMatches(positions, met, ignored)
        curves.append(category_curves(ranked[k], outside, state, num_truth[k], params))
        start, first = end, last
    T, R, A, M = len(params.iou_thresholds), len(params.recall_thresholds), len(params.areas), len(params.max_dets)
    none = np.zeros((T, R, 0, A, M))  # for a data set without categories
    return CocoResult(
        task=task,
        params=params,
        precision=np.concatenate([none, *(curve.precision[:, :, None] for curve in curves)], axis=2),
        recall=np.concatenate([none[:, 0], *(curve.recall[:, None] for curve in curves)], axis=1),
        scores=np.concatenate([none, *(curve.scores[:, :, None] for curve in curves)], axis=2),
        num_truth=num_truth,
        num_ignored=np.array([np.count_nonzero(truth.ignored[own]) for own in truth_parts.parts()], dtype=np.int64),
        num_detections=np.diff(detection_parts.bounds),
        matches=matches,
    )


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


@dataclass
class _Partition:
    """Rows category after category: those of number k are rows[bounds[k]:bounds[k + 1]]."""

    rows: np.ndarray
    bounds: np.ndarray

    def spans(self) -> list[slice]:
        return [slice(start, end) for start, end in pairwise(self.bounds.tolist())]

    def parts(self) -> list[np.ndarray]:
        return [self.rows[span] for span in self.spans()]


def _partition(
    columns: GroundTruthColumns | DetectionColumns, truth: GroundTruthColumns, by_category: bool, by_image: bool = True
) -> _Partition:
    """Rows by category, in each by image if asked, else as they came.

    Without categories there is one part, and an image's rows are in the order of their categories.
    """
    image, category = columns.image, columns.category
    order = np.arange(len(image)) if by_category else stable_argsort(category, truth.num_categories)
    if by_image or not by_category:
        order = order[stable_argsort(image[order], truth.num_images)]
    if not by_category:
        return _Partition(order, np.array([0, len(order)]))
    order = order[stable_argsort(category[order], truth.num_categories)]
    counts = np.bincount(category, minlength=truth.num_categories)
    return _Partition(order, np.concatenate([[0], np.cumsum(counts)]))


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
    truth_rows: np.ndarray,
) -> Matches:
    """Match the candidates of all categories together."""
    truth_ignored = truth.ignored | _outside(truth.areas, params.areas)  # (A, G)
    candidate_offset = np.cumsum([0, *(len(positions) for positions, _ in found)])
    detection_offset = np.cumsum([0, *(len(one.rows) for one in ranked)])
    nothing = np.zeros(0, np.int64)
    together = Candidates(
        turn=np.concatenate([nothing, *(c.turn for _, c in found)]),
        detection=np.concatenate([nothing, *(c.detection + candidate_offset[k] for k, (_, c) in enumerate(found))]),
        truth=np.concatenate([nothing, *(c.truth for _, c in found)]),
        overlap=np.concatenate([np.zeros(0), *(c.overlap for _, c in found)]),
    )
    taken = match_candidates(together, params.iou_thresholds, truth_ignored[:, truth_rows], truth.crowd[truth_rows])
    taken = np.append(truth_rows, -1).astype(np.int32)[taken]  # places to rows; no match, -1, finds the end
    detection = np.concatenate([nothing, *(one.rows for one in ranked)])
    return Matches(
        objects=truth,
        detections=detections,
        iou_thresholds=params.iou_thresholds,
        detection=detection,
        rank=np.concatenate([np.zeros(0, np.int32), *(one.rank for one in ranked)]),
        candidate=np.concatenate([nothing, *(p + detection_offset[k] for k, (p, _) in enumerate(found))]),
        truth=taken.reshape(len(taken), len(params.areas), len(params.iou_thresholds)),
        outside=_outside(np.asarray(detections.areas)[detection], params.areas),
        truth_ignored=truth_ignored,
        is_nothing=truth.annotation_ids == 0,
    )


def _outside(areas: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(A, rows) bool, areas below or above each range."""
    return (areas < ranges[:, :1]) | (areas > ranges[:, 1:])
