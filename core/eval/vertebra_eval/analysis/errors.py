"""What keeps AP50 from 1: each false detection and missed object gets one cause, and each cause its price in AP50.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv:2008.08115, sections 2.2
and 2.3, in the order the authors' tool tests the causes. Unlike it, detections are limited per image and class, as in
COCO's AP, not per image; and only classes with objects enter AP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis.overlaps import Overlaps
from vertebra_eval.analysis.weighted_ap import Judged, mean_average_precision, rank_classes
from vertebra_eval.coco.matches import Matches

__all__ = ["BACKGROUND_IOU", "ERROR_MEANINGS", "FOREGROUND_IOU", "ErrorSplit", "error_split"]

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1  # t_f and t_b, section 2.2
ERROR_MEANINGS = {
    "class": "on an object (IoU from 0.5), but of another class",
    "localization": "the right class, but IoU only 0.1 to 0.5",
    "both": "another class and IoU only 0.1 to 0.5",
    "duplicate": "on an object that a better-scored detection has found",
    "background": "on no object (IoU below 0.1)",
    "missed": "an object without a detection, nor one of wrong class or place",
}
"""The causes, in the order in which they are reported; all but the last are of detections."""
_KINDS = tuple(ERROR_MEANINGS)


@dataclass
class ErrorSplit:
    """Counts and prices of the errors.

    Args:
        ap50: as it is.
        counts: cause -> number of detections, or of objects for `missed`.
        delta_ap50: cause -> AP50 gained if all errors of it were fixed, at least 0. They do not add up.
    """

    ap50: float
    counts: dict[str, int]
    delta_ap50: dict[str, float]


def error_split(matches: Matches, pairs: Overlaps) -> ErrorSplit | None:
    """Split the errors at IoU 0.5; None if that threshold was not evaluated or no object counts.

    Fixing, as in section 2.3: a wrong class or place is put right, unless the object is found already or a
    better-scored detection of these two kinds stands for it: then the detection goes. Both, duplicate, background:
    the detection goes. Missed: the object goes.

    Args:
        pairs: overlaps of at least `BACKGROUND_IOU`.
    """
    at = matches.threshold_index(FOREGROUND_IOU)
    if at is None or matches.object_ignored.all():
        return None
    match = np.where(matches.does_not_count[:, at], -1, matches.match[:, at])
    false = (match < 0) & ~matches.does_not_count[:, at]
    found = np.zeros(len(matches.objects.category), bool)
    found[match[match >= 0]] = True

    same = matches.category[pairs.detection] == matches.objects.category[pairs.truth]
    counted = ~matches.object_ignored[pairs.truth]
    same_iou, same_truth = _best(pairs, same & counted, len(match))
    other_iou, other_truth = _best(pairs, ~same & counted, len(match))
    error = np.full(len(match), -1)  # (D,) position in `_KINDS`; -1 right or not counted
    for kind, holds in (  # the first that holds
        ("localization", (same_iou >= BACKGROUND_IOU) & (same_iou < FOREGROUND_IOU)),
        ("class", other_iou >= FOREGROUND_IOU),
        ("duplicate", same_iou >= FOREGROUND_IOU),
        ("both", other_iou >= BACKGROUND_IOU),
        ("background", np.ones(len(match), bool)),
    ):
        error[false & (error < 0) & holds] = _KINDS.index(kind)

    misplaced, misnamed = (error == _KINDS.index(kind) for kind in ("localization", "class"))
    target = np.where(misplaced, same_truth, np.where(misnamed, other_truth, -1))
    stands_for = _best_scored(matches.score, target, found)
    missed = ~matches.object_ignored & ~found & ~np.isin(np.arange(len(found)), target)
    base = _ap50(matches, match, ~matches.does_not_count[:, at])
    counts = {kind: int((error == number).sum()) for number, kind in enumerate(_KINDS)} | {"missed": int(missed.sum())}
    delta = {}
    for number, kind in enumerate(_KINDS):
        of_kind = error == number
        fixed = np.where(of_kind & stands_for, target, match)
        keep = ~matches.does_not_count[:, at] & ~(of_kind & ~stands_for)
        delta[kind] = max(0.0, _ap50(matches, fixed, keep, missed if kind == "missed" else None) - base)
    return ErrorSplit(base, counts, delta)


def _best(pairs: Overlaps, use: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(D,) largest IoU over the pairs in use and (D,) the object it is with; 0 and -1 where there is none."""
    detection, truth, iou = pairs.detection[use], pairs.truth[use], pairs.iou[use]
    order = np.lexsort((-truth, iou, detection))  # the largest comes last; of equal ones the first object
    best_iou, best_truth = np.zeros(count), np.full(count, -1)
    best_iou[detection[order]], best_truth[detection[order]] = iou[order], truth[order]
    return best_iou, best_truth


def _best_scored(score: np.ndarray, target: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(D,) bool: the best-scored of the detections that aim at an object which is not found."""
    aiming = np.flatnonzero(target >= 0)
    aiming = aiming[~found[target[aiming]]]
    order = aiming[np.lexsort((-score[aiming], target[aiming]))]
    first = np.diff(target[order], prepend=-1) != 0
    chosen = np.zeros(len(score), bool)
    chosen[order[first]] = True
    return chosen


def _ap50(matches: Matches, match: np.ndarray, keep: np.ndarray, without: np.ndarray | None = None) -> float:
    """AP50 if detections matched `match` (their class becomes the object's), only `keep` exist, and not `without`."""
    classes = matches.category.copy()
    classes[match >= 0] = matches.objects.category[match[match >= 0]]
    judged = Judged.of(matches)._replace(category=classes, truth_category=matches.objects.category)
    changed = judged._replace(match=match[:, None], ignored=~keep[:, None])
    if without is not None:
        changed = changed._replace(truth_ignored=matches.object_ignored | without)
    ranked = rank_classes(changed)
    if not ranked:
        return 1.0  # every object was missed, and none is left
    return float(mean_average_precision(ranked, np.ones((matches.num_images, 1), np.int32))[0, 0])
