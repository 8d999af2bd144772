"""How far AP would move with another sample of images: bootstrap intervals over images.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, percentile intervals. The image is
the unit that is drawn, as objects and detections of one image depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vertebra.evaluation.analysis.weighted_ap import mean_average_precision, rank_classes
from vertebra.evaluation.match_columns import MatchColumns

__all__ = ["INTERVAL_NAMES", "ap_values", "bootstrap_intervals", "percentile_interval", "resample_weights"]

INTERVAL_NAMES: Mapping[str, float | None] = {"AP": None, "AP50": 0.5, "AP75": 0.75}
"""Numbers that get an interval: name -> IoU threshold, None the mean over all."""
_AT_A_TIME = 250  # resamples, to bound memory: 4 bytes x images x this


def bootstrap_intervals(
    columns: MatchColumns, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the numbers in `INTERVAL_NAMES`; empty with fewer than two images or without objects.

    Resamples that draw no image with an object are left out.

    Args:
        seed: the same seed gives the same intervals.
        level: the share of resamples inside.
    """
    if columns.num_images < 2 or columns.truth_ignored.all():
        return {}
    ranked, rng = rank_classes(columns), np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _AT_A_TIME):
        weights = resample_weights(rng, columns.num_images, min(_AT_A_TIME, resamples - start))
        parts.append(mean_average_precision(ranked, weights))
    values = np.concatenate(parts, axis=1)  # (T, B)
    return {
        name: percentile_interval(drawn, level) for name, drawn in ap_values(values, columns.iou_thresholds).items()
    }


def resample_weights(rng: np.random.Generator, num_images: int, count: int) -> np.ndarray:
    """(N, count) int32: how often each image is drawn in N draws with replacement."""
    drawn = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=count)
    return np.ascontiguousarray(drawn.T, dtype=np.int32)


def ap_values(values: np.ndarray, iou_thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """AP of each threshold (T, B) to the named numbers (B,); those whose threshold was not evaluated are left out."""
    named = {}
    for name, iou in INTERVAL_NAMES.items():
        rows = np.arange(len(values)) if iou is None else np.flatnonzero(np.isclose(iou_thresholds, iou))
        if len(rows):
            named[name] = values[rows].mean(axis=0)
    return named


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the values (B,), those that exist."""
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
