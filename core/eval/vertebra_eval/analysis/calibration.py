"""Whether a score of 0.8 is right eight times in ten: reliability bins and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.coco.matches import Matches

__all__ = ["Calibration", "calibration"]


@dataclass
class Calibration:
    """M bins of score, of equal width over [0, 1].

    Args:
        edges: (M + 1,); counts: (M,) int64 detections.
        confidence: (M,) mean score, precision: (M,) share that matched an object; NaN in empty bins.
        error: expected calibration error, the mean over detections of |confidence - precision| of their bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    precision: np.ndarray
    error: float


def calibration(matches: Matches, index: int, bins: int = 10) -> Calibration | str:
    """Calibration of the detections that count, at IoU threshold number `index`; or the sentence why there is none.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 2; precision of detections
    stands for the accuracy of a classifier. A score on an edge belongs to the bin below it, as there; 0 to the first.
    """
    state = matches.state(index)
    counted = state >= 0
    scores, hits = matches.score[counted], state[counted] == 1
    if not len(scores):
        return "there are no detections that count"
    if scores.min() < 0 or scores.max() > 1:
        return f"scores are not probabilities: they range from {scores.min():g} to {scores.max():g}"
    edges = np.linspace(0, 1, bins + 1)
    number = (np.searchsorted(edges, scores, side="left") - 1).clip(min=0)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(number, weights=scores, minlength=bins) / counts
        precision = np.bincount(number, weights=hits, minlength=bins) / counts
    error = float(np.nansum(counts * np.abs(confidence - precision)) / len(scores))
    return Calibration(edges, counts, confidence, precision, error)
