"""Whether one detector's AP is really above another's on the same images, or both are the same but for chance.

Two questions, both paired over images (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993):
the interval of the difference comes from resampling images, the same ones for both detectors (chapter 10 and 13); the
p-value from swapping the detectors in a random half of the images (chapter 15): if it did not matter whose detections
an image has, a difference as large as the one seen would come up so often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis.intervals import ap_values, basic_interval, resample_weights
from vertebra_eval.analysis.weighted_ap import Judged, RankedClass, mean_average_precision, rank_classes
from vertebra_eval.coco.matches import Matches
from vertebra_eval.errors import DataError

__all__ = ["SIGNIFICANT", "Comparison", "Difference", "compare_matches"]

SIGNIFICANT = 0.05  # p-value below which a difference is called real
_AT_A_TIME = 250  # resamples


@dataclass(frozen=True)
class Difference:
    """One number of both: `second - first`, its interval at the comparison's level, and how often chance does as much.

    Args:
        p_value: two-sided, above 0: (1 + swaps with at least this difference) / (1 + swaps).
    """

    first: float
    second: float
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def is_noise(self) -> bool:
        return self.p_value >= SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """Differences by number (AP, AP50, AP75), over `num_images` images."""

    differences: dict[str, Difference]
    num_images: int
    resamples: int
    level: float

    def verdict(self, first: str, second: str) -> str:
        """One sentence about AP, with the names of the two."""
        ap = self.differences["AP"]
        inside = f"{100 * self.level:.0f} % interval {ap.low:+.4f} to {ap.high:+.4f}, p = {ap.p_value:.3f}"
        over = f"over {self.num_images} images ({inside})"
        if ap.difference == 0:
            return f"The AP of {second} is that of {first} {over}: there is no difference."
        side = "above" if ap.difference > 0 else "below"
        start = f"The AP of {second} is {abs(ap.difference):.4f} {side} that of {first} {over}"
        if ap.is_noise:
            return f"{start}: that is within noise, so it does not show which is better."
        return f"{start}: that is more than noise."


def compare_matches(
    first: Matches, second: Matches, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare two detectors on the same ground truth.

    Args:
        resamples: for the interval, and as many swaps for the p-value.

    Raises:
        DataError: the ground truths differ, have no object or fewer than two images.
    """
    _check(first, second)
    size, rng = first.num_images, np.random.default_rng(seed)
    ranked = rank_classes(first), rank_classes(second)
    both = _pooled(first, second)
    every = np.ones((size, 1), np.int32)
    seen = [ap_values(mean_average_precision(part, every), first.iou_thresholds) for part in ranked]
    drawn, swapped = [], []
    for start in range(0, resamples, _AT_A_TIME):
        count = min(_AT_A_TIME, resamples - start)
        weights = resample_weights(rng, size, count)
        drawn.append(mean_average_precision(ranked[1], weights) - mean_average_precision(ranked[0], weights))
        swap = rng.integers(0, 2, (size, count), dtype=np.int32)
        whole = np.ones_like(swap)
        one, other = np.concatenate([1 - swap, swap]), np.concatenate([swap, 1 - swap])  # (2N, count)
        swapped.append(mean_average_precision(both, other, whole) - mean_average_precision(both, one, whole))
    by_resample, by_swap = (
        ap_values(np.concatenate(parts, axis=1), first.iou_thresholds) for parts in (drawn, swapped)
    )
    differences = {}
    for name in by_swap:
        a, b = float(seen[0][name][0]), float(seen[1][name][0])
        low, high = basic_interval(b - a, by_resample[name], level)
        as_large = int((np.abs(by_swap[name]) >= abs(b - a) - 1e-12).sum())  # sums of floats differ in the last bits
        differences[name] = Difference(a, b, low, high, (1 + as_large) / (1 + resamples))
    return Comparison(differences, size, resamples, level)


def _check(first: Matches, second: Matches) -> None:
    for name in ("image", "category", "boxes", "areas"):
        if not np.array_equal(getattr(first.objects, name), getattr(second.objects, name)):
            raise DataError(f"the two were evaluated on different ground truth: column {name} differs")
    if not np.array_equal(first.object_ignored, second.object_ignored):
        raise DataError("the two were evaluated on different ground truth: other objects count")
    if not np.array_equal(first.iou_thresholds, second.iou_thresholds):
        raise DataError("the two were evaluated at different IoU thresholds")
    if first.num_images != second.num_images or first.class_names != second.class_names:
        raise DataError("the two were evaluated on different images or classes")
    if first.num_images < 2 or first.object_ignored.all():
        raise DataError("a comparison needs at least two images, and objects to find in them")


def _pooled(first: Matches, second: Matches) -> list[RankedClass]:
    """The detections of both in one ranking: rows of weights 0 to N - 1 for the first's, N to 2N - 1 the second's."""
    one, other = Judged.of(first), Judged.of(second)
    pooled = {
        name: np.concatenate([getattr(one, name), getattr(other, name)])
        for name in ("category", "score", "match", "ignored")
    }
    image = np.concatenate([one.image, other.image + first.num_images])
    return rank_classes(one._replace(image=image, **pooled), np.concatenate([one.image, other.image]))
