"""Who matched whom in one image of a panoptic segmentation: true positives, false positives, misses by class.

Source: Kirillov et al., "Panoptic Segmentation", arXiv:1801.00868, section 4, with the treatment of void and crowd
of https://github.com/cocodataset/panopticapi, whose numbers these are.
Letters: H x W pixels, T true and P predicted segments.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra_eval.errors import DataError
from vertebra_eval.nearest import listed
from vertebra_eval.panoptic.data import segment_faults
from vertebra_eval.panoptic.runs import IdRuns, common_runs

__all__ = ["VOID", "ImageCounts", "Segments", "count_image"]

VOID = 0
"""Id of pixels that belong to no segment."""
_MOST_ID = 2**32 - 1
_TABLE = 1 << 16  # pairs of segments that are counted in a table of all


@dataclass
class Segments:
    """S segments of one image as columns, in the order they were written in.

    Args:
        ids: (S,) int64, above 0, each once.
        classes: (S,) int64 rows in the list of classes.
        crowd: (S,) bool.
        areas: (S,) int64 pixels as annotated, -1 where the area is to be counted.
    """

    ids: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, segments: Sequence[Mapping[str, Any]], classes: Mapping[Any, int], where: str) -> Segments:
        """COCO's `segments_info`, with the row of each category.

        Raises:
            DataError: names `where` and the segment: see `segment_faults`; a category not in `classes`.
        """
        for which, fault in segment_faults(segments, _MOST_ID):
            raise DataError(f"{where}, {which}: {fault}")
        keys = [segment.get("category_id") for segment in segments]
        for segment, key in zip(segments, keys, strict=True):
            if not isinstance(key, Hashable) or key not in classes:
                raise DataError(
                    f"{where}, segment {segment['id']}: category_id {key!r:.60} is not among the categories; they are "
                    f"{listed(sorted(classes), 8)}"
                )
        areas = (segment.get("area") for segment in segments)
        return cls(
            np.array([segment["id"] for segment in segments], np.int64),
            np.array([classes[key] for key in keys], np.int64),
            np.array([bool(segment.get("iscrowd")) for segment in segments], bool),
            np.array([-1 if area is None else area for area in areas], np.int64),
        )

    def with_pixels(self, runs: IdRuns) -> Segments:
        """Those that have a pixel."""
        keep = np.isin(self.ids, runs.present())
        return Segments(self.ids[keep], self.classes[keep], self.crowd[keep], self.areas[keep])


@dataclass
class ImageCounts:
    """What one image adds to the numbers of its classes.

    Args:
        matched: (M,) int64 class of each true positive, in the order of true, then predicted id; iou: (M,) float64.
        false: (F,) int64 class of each false positive. missed: (N,) int64 class of each miss.
        odd_areas: true segments whose annotated area is not the number of their pixels.
        num_empty: predicted segments that were dropped because they have no pixel.
    """

    matched: np.ndarray
    iou: np.ndarray
    false: np.ndarray
    missed: np.ndarray
    odd_areas: int = 0
    num_empty: int = 0

    @property
    def quality(self) -> float | None:
        """PQ of all this image's segments together, whatever their class; None if it has none that count."""
        weight = len(self.matched) + 0.5 * len(self.false) + 0.5 * len(self.missed)
        return float(self.iou.sum() / weight) if weight else None


def count_image(true_ids: IdRuns, truth: Segments, pred_ids: IdRuns, predicted: Segments, where: str) -> ImageCounts:
    """Match the segments of one image.

    A pair of one class matches if its IoU is above 0.5, with true void pixels excluded from the union; a true segment's
    area is the annotated one. A prediction without a match that lies by more than half on void and on the crowd of its
    class is not counted. Where a class has several crowds, the last one written is meant, as in panopticapi.

    Args:
        true_ids, pred_ids: of the same image; 0 where there is no segment.
    Raises:
        DataError: names `where`: sizes differ, ids without a segment, segments without a pixel.
    """
    if tuple(true_ids.size) != tuple(pred_ids.size):
        (h, w), (height, width) = pred_ids.size, true_ids.size
        raise DataError(
            f"{where}: the prediction has {w}x{h} pixels (width x height), the ground truth {width}x{height}"
        )
    t, p, pixels = _pairs(true_ids, truth, pred_ids, predicted, where)
    true_area = _sums(t, pixels, len(truth))
    if len(truth) and not true_area.all():
        empty = truth.ids[true_area == 0]
        raise DataError(f"{where}: true segments {listed(empty, 8)} are in segments_info, but have no pixel")
    odd = int(((truth.areas >= 0) & (truth.areas != true_area)).sum())
    true_area = np.where(truth.areas >= 0, truth.areas, true_area)
    pred_area = _sums(p, pixels, len(predicted))
    if len(predicted) and not pred_area.all():
        empty = predicted.ids[pred_area == 0]
        raise DataError(f"{where}: predicted segments {listed(empty, 8)} are in segments_info, but have no pixel")
    on_void = _sums(np.where(t < 0, p, -1), pixels, len(predicted))

    both = np.flatnonzero((t >= 0) & (p >= 0))
    both = both[(truth.classes[t[both]] == predicted.classes[p[both]]) & ~truth.crowd[t[both]]]
    union = pred_area[p[both]] + true_area[t[both]] - pixels[both] - on_void[p[both]]
    iou = pixels[both] / np.maximum(union, 1)  # an annotated area that is far too small can empty the union
    met = iou > 0.5
    both, iou = both[met], iou[met]

    missed = ~truth.crowd
    missed[t[both]] = False
    unmatched = np.ones(len(predicted), dtype=bool)
    unmatched[p[both]] = False
    excused = on_void + _sums(np.where(_on_crowd(t, p, truth, predicted), p, -1), pixels, len(predicted))
    false = unmatched & (excused <= 0.5 * pred_area)
    return ImageCounts(truth.classes[t[both]], iou, predicted.classes[false], truth.classes[missed], odd)


def _pairs(
    true_ids: IdRuns, truth: Segments, pred_ids: IdRuns, predicted: Segments, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the true and the predicted segment (-1: void) and common pixels of each combination that occurs, by
    ascending ids."""
    true_order, true_place = _places(true_ids.ids, truth.ids, f"{where}: the ground truth's image")
    pred_order, pred_place = _places(pred_ids.ids, predicted.ids, f"{where}: the predicted image")
    first, second, lengths = common_runs(true_ids, pred_ids)
    width = len(predicted) + 1
    keys, size = true_place[first] * width + pred_place[second], width * (len(truth) + 1)
    if size <= _TABLE:
        pixels = np.bincount(keys, weights=lengths, minlength=size).astype(np.int64)
        pairs = np.flatnonzero(pixels)
        pixels = pixels[pairs]
    else:
        pairs = np.unique(keys, return_counts=True)[0]  # and a search in them: half the time of return_inverse
        pixels = np.bincount(np.searchsorted(pairs, keys), weights=lengths).astype(np.int64)
    t, p = np.divmod(pairs, width)
    return true_order[t], pred_order[p], pixels


def _places(ids: np.ndarray, known: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of void, -1, and of the known ids in ascending order; and the place of each id in that."""
    order = np.concatenate(([-1], np.argsort(known)))
    ascending = np.concatenate(([VOID], np.sort(known)))
    place = np.searchsorted(ascending, ids)
    strange = ascending[np.minimum(place, len(known))] != ids
    if strange.any():
        names = listed(np.unique(ids[strange]), 8)
        raise DataError(f"{where} has segment ids {names} that are not in its segments_info")
    return order, place


def _sums(rows: np.ndarray, pixels: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64 pixels by row; rows of -1 are ignored."""
    inside = rows >= 0
    return np.bincount(rows[inside], weights=pixels[inside], minlength=count).astype(np.int64)


def _on_crowd(t: np.ndarray, p: np.ndarray, truth: Segments, predicted: Segments) -> np.ndarray:
    """Which pairs are a prediction on the crowd of its class. (number of pairs,) bool."""
    on_crowd = np.zeros(len(t), dtype=bool)
    crowd_of = {int(truth.classes[row]): int(row) for row in np.flatnonzero(truth.crowd)}  # the last of a class stays
    for label, row in crowd_of.items():
        pairs = np.flatnonzero((t == row) & (p >= 0))
        on_crowd[pairs] = predicted.classes[p[pairs]] == label
    return on_crowd
