"""Tests whether the difference of two detectors on the same images is more than chance.

Two sources of chance are covered. Images: if it made no difference whose results an image has, the results of the two
could be swapped on a random half of the images, and the difference would vary as it does after swapping (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 15). Training: with several runs a side that differ by
their seeds, the spread within the sides shows the effect of the seed. The two variances are added; the part that is in
both, each run's own reaction to the images, is subtracted once, as for standard errors clustered in two ways (Cameron,
Gelbach and Miller, "Robust Inference with Multiway Clustering", 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis.measured import Measured, MeasuredAP
from vertebra_eval.analysis.student import check_level, t_quantile, t_tails
from vertebra_eval.coco.matches import Matches
from vertebra_eval.errors import DataError
from vertebra_eval.resamples import RESAMPLES, check_swaps

__all__ = ["SIGNIFICANT", "Comparison", "Difference", "compare_matches", "compare_measured"]

SIGNIFICANT = 0.05  # p-value below which a difference is called real
_AT_A_TIME = 200  # swaps
_SAME = 1e-12  # means of equal values differ in the last bits


@dataclass(frozen=True)
class Difference:
    """One metric of both sides, means over the runs of each, with the interval of `second - first` and the two-sided
    p-value."""

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
    """Differences by number, the leading one first (AP, mIoU, PQ), over `num_images` images and `runs` of each side."""

    differences: dict[str, Difference]
    num_images: int
    resamples: int
    level: float
    runs: tuple[int, int] = (1, 1)

    @property
    def covers_seeds(self) -> bool:
        """Whether the runs show how much training again changes."""
        return max(self.runs) > 1

    def verdict(self, first: str, second: str) -> str:
        """One sentence about the leading number, with the names of the two."""
        name, one = next(iter(self.differences.items()))
        inside = f"{100 * self.level:.0f} % interval {one.low:+.4f} to {one.high:+.4f}, p = {one.p_value:.3f}"
        over = f"over {self.num_images} images"
        if self.covers_seeds:
            over += f" and {self.runs[0]} and {self.runs[1]} runs"
        if one.difference == 0:
            return f"The {name} of {second} is that of {first} {over} ({inside}): there is no difference."
        side = "above" if one.difference > 0 else "below"
        start = f"The {name} of {second} is {abs(one.difference):.4f} {side} that of {first} {over} ({inside})"
        if one.is_noise:
            return f"{start}: that is within noise, so it does not show which is better."
        return f"{start}: that is more than noise."


def compare_matches(
    first: Matches | Sequence[Matches],
    second: Matches | Sequence[Matches],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """AP, AP50 and AP75 of two detectors; of each one run, or several."""
    sides = [[MeasuredAP(run) for run in ([side] if isinstance(side, Matches) else side)] for side in (first, second)]
    return compare_measured(*sides, resamples=resamples, seed=seed, level=level)


def compare_measured(
    first: Sequence[Measured],
    second: Sequence[Measured],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two sides on the same ground truth.

    Args:
        first, second: the runs of each side, which differ by the seed of their training.
        resamples: number of random swaps.

    Raises:
        DataError: the ground truths differ, have no object or fewer than two images; too few resamples.
    """
    check_swaps(resamples)
    check_level(level)
    if not first or not second:
        raise DataError("a side of the comparison has no run")
    _check([*first, *second])
    rng = np.random.default_rng(seed)
    values = [[run.values() for run in side] for side in (first, second)]
    every = [run for side in values for run in side]
    names = [name for name in every[0] if all(name in run and not math.isnan(run[name]) for run in every)]
    if not names:
        raise DataError("the runs have no metric in common that is defined")
    pairs = _pairs(len(first), len(second))
    swapped: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, resamples, _AT_A_TIME):
        swap = rng.integers(0, 2, (first[0].num_images, min(_AT_A_TIME, resamples - start))) > 0
        drawn = [first[a].swapped(second[b], swap) for a, b in pairs]
        for name in names:
            swapped[name].append(np.stack([one[name] for one in drawn]))
    differences = {}
    for name in names:
        runs = [np.array([run[name] for run in side]) for side in values]
        variance, freedom = _variance(runs, np.concatenate(swapped[name], axis=1), first[0].num_images)
        differences[name] = _judged(runs, variance, freedom, level)
    return Comparison(differences, first[0].num_images, resamples, level, (len(first), len(second)))


def _pairs(first: int, second: int) -> list[tuple[int, int]]:
    """Pairs of runs in which each run of a side occurs as often as the others."""
    most = max(first, second)
    if most % min(first, second):
        return [(a, b) for a in range(first) for b in range(second)]
    return [(turn % first, turn % second) for turn in range(most)]


def _variance(runs: Sequence[np.ndarray], swapped: np.ndarray, num_images: int) -> tuple[float, float]:
    """Variance of the difference of means, and its degrees of freedom.

    Args:
        runs: the values of each side's runs. swapped: (P, B) differences after swaps, of each pair of runs.
    """
    of_images = float((swapped.mean(axis=0) ** 2).mean())  # swaps have mean 0
    counts = [len(side) for side in runs]
    freedom = sum(counts) - len(counts)
    if not freedom:
        return of_images, num_images - 1.0
    each = sum(1 / count for count in counts)
    within = sum(float(((side - side.mean()) ** 2).sum()) for side in runs) / freedom
    # What a single run's own reaction to the images adds: in P pairs each run of a side occurs equally often.
    apart = float(((swapped - swapped.mean(axis=0)) ** 2).mean(axis=1).sum())
    own_reaction = apart / sum(len(swapped) * (count - 1) / count for count in counts)
    of_training = max(each * (within - own_reaction), 0.0)
    variance = of_images + of_training
    parts = of_images**2 / (num_images - 1) + of_training**2 / freedom
    satterthwaite = variance**2 / parts if parts else num_images - 1.0
    return variance, max(satterthwaite, min(freedom, num_images - 1))


def _judged(runs: Sequence[np.ndarray], variance: float, freedom: float, level: float) -> Difference:
    first, second = (float(side.mean()) for side in runs)
    difference, error = second - first, variance**0.5
    if error <= _SAME:
        same = abs(difference) <= _SAME
        return Difference(first, first if same else second, difference, difference, 1.0 if same else 0.0)
    half = t_quantile(level, freedom) * error
    ends = max(difference - half, -1.0), min(difference + half, 1.0)
    return Difference(first, second, *ends, t_tails(difference / error, freedom))


def _check(runs: Sequence[Measured]) -> None:
    known = runs[0].ground_truth()
    for run in runs[1:]:
        for what, own in run.ground_truth().items():
            if what not in known or not np.array_equal(known[what], own):
                raise DataError(
                    f"the runs were evaluated on different ground truth: {what} of them differ; evaluate all on the "
                    "same images, in the same order"
                )
    if runs[0].num_images < 2 or not any(count.any() for count in runs[0].images_of_classes().values()):
        raise DataError("a comparison needs at least two images, and objects to find in them")
