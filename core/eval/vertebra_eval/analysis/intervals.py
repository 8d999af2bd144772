"""Confidence intervals of metrics: where the metric would be on infinitely many images of the same kind.

An interval is the metric minus its bias on few images, plus and minus a t quantile of standard errors. The standard
error comes from resampling images with replacement (Davison and Hinkley, "Bootstrap Methods and their Application",
1997, chapter 2); the image is the unit of resampling because objects and detections of one image depend on each other.
Two parts of the variance that resamples cannot show are added:

- The value of a class with m of N images has variance s^2 / m, but s^2 (1 - 1/m) E[1/M | M > 0] in the resamples that
  contain the class, where M is the number of its images drawn, binomial (N, m/N): nothing for one image, and enough
  from four images on if N is large. The difference is added, with one s^2 for all classes, because the classes
  concerned have too few images to estimate their own.
- Classes that do not occur are assumed to be like the others: the variance between classes stands in for them.

`tools/simulate_intervals.py` measures how often such intervals contain the truth; docs/intervals.md has the tables, and
what other methods reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vertebra_eval.analysis.measured import Measured, MeasuredAP
from vertebra_eval.analysis.student import check_level, t_quantile
from vertebra_eval.coco.matches import Matches
from vertebra_eval.resamples import RESAMPLES, check_resamples

__all__ = ["Intervals", "bootstrap_intervals", "measured_intervals", "resample_weights"]

_AT_A_TIME = 200  # resamples, to bound memory: 4 bytes x images x this
_FEW = 30  # images of a class from which on resamples show all
_ENOUGH_CLASSES = 10  # from which on classes show what a class that does not occur may be like
_MOST_BIAS = 3.0  # standard errors; a larger one is not known well enough to be taken off
_LEAST_FREEDOM = 2.0  # degrees of freedom; with less, an interval says nothing


class Intervals(dict[str, tuple[float, float]]):
    """Name of a metric -> (low, high), within [0, 1].

    Args:
        notes: which metrics have no interval, and why; which intervals do not contain the measured value.
    """

    def __init__(self, ends: Mapping[str, tuple[float, float]] | None = None, notes: Sequence[str] = ()) -> None:
        super().__init__(ends or {})
        self.notes = list(notes)

    def of_task(self, task: str) -> Intervals:
        """With the task as a prefix of names and notes, as in flat metrics."""
        return Intervals({f"{task}/{name}": ends for name, ends in self.items()}, [f"{task}: {n}" for n in self.notes])


@dataclass(frozen=True)
class Spread:
    """Bias and variance of a metric, and the degrees of freedom of that variance: those of a sum of variances
    (Satterthwaite, "An Approximate Distribution of Estimates of Variance Components", 1946), one per class with as many
    as the class has images, and one for the classes that do not occur."""

    bias: float
    variance: float
    freedom: float


def bootstrap_intervals(
    matches: Matches, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Intervals:
    """Intervals of AP, AP50 and AP75; see `measured_intervals`."""
    return measured_intervals(MeasuredAP(matches), resamples=resamples, seed=seed, level=level)


def measured_intervals(
    measured: Measured, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Intervals:
    """Intervals of the metrics of one run.

    Where the data cannot support an interval there is none, and a note gives the reason: fewer than two images; more
    than half of the classes do not occur (or any class, if fewer than ten do); the metric depends on classes with one
    or two images; the bias is larger than three standard errors; all images agree (AP is 0 or 1); the interval would
    reach from 0 to 1.

    Args:
        resamples: number of resamples; 0: no intervals. seed: random seed.
        level: share of such intervals that contain the metric on infinitely many images of the same kind.
    """
    check_level(level)
    found, images, values = Intervals(), measured.images_of_classes(), measured.values()
    if not check_resamples(resamples):
        return found
    whole = measured.of_classes(np.ones((measured.num_images, 1), np.int32))
    spreads = spread(measured, whole, resamples, np.random.default_rng(seed)) if measured.num_images > 1 else {}
    without: dict[str, list[str]] = {}
    outside = []
    for name, value in values.items():
        why = _too_little(whole[name][:, 0], images[name], measured.num_classes[name], measured.num_images)
        why = why or _tells_nothing(spreads[name])
        if why is None:
            freedom = min(spreads[name].freedom, measured.num_images - 1)
            half = t_quantile(level, freedom) * spreads[name].variance ** 0.5
            middle = value - spreads[name].bias
            why = "it would reach from 0 to 1" if middle - half <= 0 and middle + half >= 1 else None
        if why:
            without.setdefault(why, []).append(name)
            continue
        found[name] = max(0.0, min(middle - half, 1.0)), min(1.0, max(middle + half, 0.0))
        if not found[name][0] <= value <= found[name][1]:
            outside.append(f"{name} ({spreads[name].bias:+.3f})")
    found.notes = [f"no interval of {', '.join(names)}: {why}" for why, names in without.items()]
    if outside:
        found.notes.append(
            f"the interval does not contain the measured {', '.join(outside)}: with this few images per class the "
            "metric is biased by the value in parentheses, and the interval is corrected for that"
        )
    return found


def spread(
    measured: Measured, whole: Mapping[str, np.ndarray], resamples: int, rng: np.random.Generator
) -> dict[str, Spread]:
    """Of each metric; `whole`: its (C, 1) values of classes on all images."""
    drawn: dict[str, list[np.ndarray]] = {}
    for start in range(0, resamples, _AT_A_TIME):
        weights = resample_weights(rng, measured.num_images, min(_AT_A_TIME, resamples - start))
        for name, values in measured.of_classes(weights).items():
            drawn.setdefault(name, []).append(values)
    joined = {name: np.concatenate(parts, axis=1) for name, parts in drawn.items()}
    images, bias = measured.images_of_classes(), measured.bias(rng)
    return {
        name: _spread(
            bias[name], values, whole[name][:, 0], images[name], measured.num_classes[name], measured.num_images
        )
        for name, values in joined.items()
    }


def resample_weights(rng: np.random.Generator, num_images: int, count: int) -> np.ndarray:
    """(N, count) int32, number of times each image is drawn in N draws with replacement."""
    drawn = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=count)
    return np.ascontiguousarray(drawn.T, dtype=np.int32)


def _too_little(values: np.ndarray, images: np.ndarray, num_classes: int, num_images: int) -> str | None:
    """Reason why (C,) values of classes, each of (C,) images, say too little about the mean over all classes."""
    occur = int(np.count_nonzero(images > 0))
    if num_images < 2 or not occur:
        return "an interval needs at least two images, and objects in them"
    absent = num_classes - occur
    if absent and (absent > occur or occur < _ENOUGH_CLASSES):
        do = "does" if absent == 1 else "do"
        return f"{absent} of {num_classes} classes {do} not occur in these {num_images} images"
    unmatched = int(np.count_nonzero((images > 0) & np.isnan(values)))
    if unmatched:
        return f"{unmatched} of {num_classes} classes have objects, but no match"
    return None


def _tells_nothing(spread: Spread) -> str | None:
    if spread.freedom and spread.variance <= 1e-18:
        return "all images agree, so their spread is unknown"
    if spread.freedom < _LEAST_FREEDOM:
        return "it depends on classes with one or two images"
    if abs(spread.bias) > _MOST_BIAS * spread.variance**0.5:
        return "with this few images per class its bias is larger than three standard errors"
    return None


def _spread(
    bias: float, drawn: np.ndarray, whole: np.ndarray, images: np.ndarray, num_classes: int, num_images: int
) -> Spread:
    """Of the mean over classes, out of (C, B) values of resamples and (C,) of all images."""
    known = ~np.isnan(whole) & (images > 0)
    drawn, whole, images = drawn[known], whole[known], images[known]
    count = len(whole)
    if not count:
        return Spread(bias, 0.0, 0.0)
    of_images = _variance(np.where(np.isnan(drawn), whole[:, None], drawn).mean(axis=0))
    of_class = np.array([_variance(values) for values in drawn])
    shown = np.array([_shown(float(number), num_images) for number in images])
    if images.max() < 2:
        return Spread(bias, of_images, 0.0)
    one_image = of_class.sum() / shown.sum()
    missing = one_image * np.maximum(1 / images - shown, 0)
    of_class += missing
    between = max(float(whole.var(ddof=1) - of_class.mean()), 0.0) if count > 1 else 0.0
    absent = num_classes - count
    of_absent = absent * (1 + absent / count) * between / num_classes**2
    parts = np.append(of_class / count**2, of_absent)
    of_parts = np.append(images, max(count - 1, 1))
    total = float((parts**2 / of_parts).sum())
    freedom = float(parts.sum()) ** 2 / total if total > 0 else np.inf
    return Spread(bias, of_images + float(missing.sum()) / count**2 + of_absent, freedom)


def _variance(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


@lru_cache(maxsize=4096)
def _shown(images: float, num_images: int) -> float:
    """Variance of a class's mean in the resamples that contain it, relative to that of one image."""
    if images >= _FEW:
        return 1 / images
    drawn = np.arange(1, min(num_images, 4 * _FEW) + 1)
    share = images / num_images
    if share >= 1:
        return (1 - 1 / images) / num_images
    # Binomial, by the ratio of one probability to the one before.
    ratio = (num_images - drawn[:-1]) / drawn[1:] * share / (1 - share)
    log_chance = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(ratio, 1e-300)))])
    chance = np.exp(log_chance - log_chance.max())
    return (1 - 1 / images) * float((chance / drawn).sum() / chance.sum())
