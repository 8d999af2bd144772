"""The bias of AP on few images, estimated by a smoothed bootstrap.

AP takes the best precision at any higher recall, and with few detections the best one is often a lucky one. With 80
classes on 100 images AP is therefore 0.03 too high on average, which is more than its standard error. Resampling images
shows only part of this bias, because the luck in the sample becomes part of the truth that resamples are compared with.
So the population that is resampled is smoothed first (Silverman and Young, "The Bootstrap: To Smooth or Not to
Smooth?", 1987; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.4), in two ways:

- For classes with many objects: normal noise is added to the logarithm of each detection's rank, which removes what is
  lucky about the order of detections.
- For classes with few objects: the images of a class are mixed with those of other classes, worth a few objects. A
  class with one object is then mostly an average class, a class with a hundred is itself: a hierarchical model.

The bias is the mean AP of samples from that population, as large as the data set, minus the AP of its smooth curves.
Letters: D detections, G objects, U units (a unit: what one image has of one class), T thresholds, B draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vertebra_eval.analysis.weighted_ap import RECALLS, RankedClass, recalls_reached

__all__ = ["small_sample_bias"]

_DRAWS = (60, 600)  # fewest and most per class: few detections cost little and vary much
_DRAWN = 30_000  # detections drawn per class, within these limits
_WIDTH = 0.15  # standard deviation of the noise on log ranks
_BORROWED = 3.0  # objects of other classes that each class is mixed with
_LEAST_BORROWED = 0.02  # share of other classes below which none are mixed in
_POOL_CLASSES, _POOL_IMAGES = 20, 12  # number of other classes, and of images with objects of each
_MOST_IMAGES = 200  # a class with more images with objects is subsampled to this many
_RATE = 2 / 3  # bias falls with this power of the number of images, as for other estimates of monotone curves
_BINS = 6  # per standard deviation


class _Units(NamedTuple):
    """What images have of one class, or of several, best detection first.

    Args:
        unit: (D,) int. score: (D,). hit, counted: (D, T) bool. truth_unit: (G,) int. expected: (U,) expected number of
            draws of each unit.
    """

    unit: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    truth_unit: np.ndarray
    expected: np.ndarray


def small_sample_bias(ranked: list[RankedClass], num_images: int, rng: np.random.Generator) -> np.ndarray:
    """(C, T) expected AP of each class on this many images minus its AP on infinitely many."""
    result = np.zeros((len(ranked), ranked[0].hit.shape[1] if ranked else 0))
    if not ranked:
        return result
    pool = _pool(ranked, num_images, rng)
    for row, part in enumerate(ranked):
        own, share = _units_of(part, num_images, _MOST_IMAGES, rng)
        world = _mixed(own, pool)
        if len(world.unit):
            result[row] = _bias(world, rng) * share**_RATE
    return result


def _units_of(part: RankedClass, num_images: int, limit: int, rng: np.random.Generator) -> tuple[_Units, float]:
    """The images of a class, or a random part with about `limit` images with objects; and the share that was kept."""
    with_objects = np.unique(part.truth_image)
    share = min(1.0, limit / len(with_objects))
    kept = np.ones(num_images, bool)
    if share < 1:
        kept = rng.random(num_images) < share
        kept[rng.choice(with_objects)] = True
    rows, truth_image = kept[part.image], part.truth_image[kept[part.truth_image]]
    image = part.image[rows]
    images, unit = np.unique(np.concatenate([image, truth_image]), return_inverse=True)
    units = _Units(
        unit=unit[: len(image)],
        score=part.score[rows],
        hit=part.hit[rows],
        counted=~part.ignored[rows],
        truth_unit=unit[len(image) :],
        expected=np.ones(len(images)),
    )
    return units, share


def _pool(ranked: list[RankedClass], num_images: int, rng: np.random.Generator) -> _Units:
    """Units of many classes, weighted so that one object is expected in total."""
    chosen = np.arange(len(ranked))
    if len(ranked) > _POOL_CLASSES:
        chosen = rng.choice(len(ranked), _POOL_CLASSES, replace=False)
    joined = _joined([_units_of(ranked[row], num_images, _POOL_IMAGES, rng)[0] for row in chosen.tolist()])
    return joined._replace(expected=joined.expected / len(joined.truth_unit))


def _joined(parts: list[_Units]) -> _Units:
    starts = np.cumsum([0, *(len(part.expected) for part in parts[:-1])])
    score = np.concatenate([part.score for part in parts])
    order = np.argsort(-score, kind="stable")
    unit, hit, counted = (
        np.concatenate(columns)[order]
        for columns in (
            [part.unit + start for part, start in zip(parts, starts, strict=True)],
            [part.hit for part in parts],
            [part.counted for part in parts],
        )
    )
    truth_unit = np.concatenate([part.truth_unit + start for part, start in zip(parts, starts, strict=True)])
    return _Units(unit, score[order], hit, counted, truth_unit, np.concatenate([part.expected for part in parts]))


def _mixed(own: _Units, pool: _Units) -> _Units:
    """A class with the expected number of objects unchanged, a part of them from the pool."""
    objects = len(own.truth_unit)
    borrowed = _BORROWED / (objects + _BORROWED)
    if borrowed < _LEAST_BORROWED:
        return own
    return _joined(
        [
            own._replace(expected=own.expected * (1 - borrowed)),
            pool._replace(expected=pool.expected * objects * borrowed),
        ]
    )


def _bias(world: _Units, rng: np.random.Generator) -> np.ndarray:
    """(T,) mean AP of draws that have an object, less the AP of the world."""
    weight = world.expected[world.unit]
    log_rank = np.log(np.cumsum(weight) - weight / 2)
    drawn = _drawn(world, log_rank, rng)
    drawn = drawn[:, ~np.isnan(drawn[0])]
    return drawn.mean(axis=1) - _smooth_average_precision(world, log_rank) if drawn.size else np.zeros(len(drawn))


def _smooth_average_precision(world: _Units, log_rank: np.ndarray) -> np.ndarray:
    """(T,) AP on infinitely many images: expected hits and detections down to each rank, smoothed by the noise."""
    width = _WIDTH / _BINS
    reach = 4 * _BINS
    place = ((log_rank - log_rank[0]) / width).astype(np.int64)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _BINS) ** 2)
    kernel /= kernel.sum()
    weight, objects = world.expected[world.unit], world.expected[world.truth_unit].sum()
    result = np.zeros(world.hit.shape[1])
    for t in range(len(result)):
        hits, seen = (
            np.cumsum(np.convolve(np.bincount(place, weight * column), kernel))
            for column in (world.hit[:, t], world.counted[:, t])
        )
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 1e-12)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        reached = np.searchsorted(hits / objects, np.maximum(RECALLS, 1e-9) - 1e-12)
        result[t] = best[reached].mean()
    return result


def _drawn(world: _Units, log_rank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, B) AP of Poisson draws of the units, with noise on each rank; NaN where no object was drawn."""
    draws = int(np.clip(_DRAWN / world.expected[world.unit].sum(), *_DRAWS))
    times = rng.poisson(world.expected[:, None], (len(world.expected), draws))
    objects = times[world.truth_unit].sum(axis=0)
    cell = np.repeat(np.arange(len(log_rank) * draws), times[world.unit].ravel())
    row, draw = np.divmod(cell, draws)
    order = np.lexsort((log_rank[row] + _WIDTH * rng.standard_normal(len(row)), draw))
    row, draw = row[order], draw[order]
    start = np.searchsorted(draw, np.arange(draws))
    result = np.where(objects > 0, 0.0, np.nan) + np.zeros((world.hit.shape[1], 1))
    for t in range(len(result)):
        at = np.flatnonzero(world.hit[row, t])
        if not len(at):
            continue
        of = draw[at]
        seen = np.append(0, np.cumsum(world.counted[row, t]))
        hits = np.arange(1, len(at) + 1) - np.searchsorted(at, start)[of]
        lift = 2.0 * (draws - of)  # separates the draws, so that one maximum.accumulate serves all
        best = np.maximum.accumulate((hits / (seen[at + 1] - seen[start[of]]) + lift)[::-1])[::-1] - lift
        reached = recalls_reached(hits, objects[of])
        steps = np.diff(reached, prepend=0.0)
        steps[hits == 1] = reached[hits == 1]
        result[t] += np.bincount(of, best * steps, minlength=draws) / len(RECALLS)
    return result
