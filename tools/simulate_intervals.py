"""How often intervals hold the truth, and comparisons raise a false alarm, on simulated results.

    python tools/simulate_intervals.py coverage [--task bbox sem_seg panoptic] [--cells 3x80 20x100] [--samples N]
                                                [--world plain strong weak rare] [--methods] [--processes 2]
    python tools/simulate_intervals.py compare [--task ...] [--cells 20x200] [--runs 1 3] [--pairs 400]
                                               [--points 0 1 2 5]

A cell is `CLASSES x IMAGES`. The truth of a cell is the metric on 100,000 images of the same generator
(`tools/simulated_results.py`). Samples with the cell's number of images are drawn, and the interval that
`vertebra-eval` computes is counted as right if it contains the truth. Seeds are fixed. Tables are in Markdown.

`--methods` also measures other intervals on the same samples: bootstrap percentiles, basic and normal bootstrap
intervals, and half-samples (Politis, Romano and Wolf, "Subsampling", 1999), plain and with extrapolated bias.

`compare` draws pairs of detectors with a given true difference in points of AP (mIoU, PQ) and a given number of runs a
side; several runs differ by their seeds, by half a point of AP. The share of pairs that are called more than noise is
the rate of false alarms if the difference is 0, and the power otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from vertebra_eval.analysis import ImageSums, compare_measured, measured_intervals
from vertebra_eval.analysis.intervals import resample_weights
from vertebra_eval.analysis.measured import Measured, MeasuredAP
from vertebra_eval.analysis.weighted_ap import mean_of_classes

from simulated_results import SegmentationWorld, World  # isort: skip

CELLS = {
    "bbox": {(3, 80): 1000, (20, 100): 1000, (80, 100): 1000, (80, 5000): 200},
    "sem_seg": {(5, 80): 1000, (20, 100): 1000, (80, 100): 1000, (80, 2000): 400},
    "panoptic": {(5, 80): 1000, (20, 100): 1000, (80, 100): 1000, (80, 2000): 400},
}
"""Task -> (classes, images) -> samples."""
WORLDS = {
    "plain": {},
    "strong": {"skill": 1.5, "seed": 2},
    "weak": {"skill": -1.2, "seed": 3},
    "rare": {"rare_worse": 0.5, "seed": 1},
}
TRUTH_IMAGES, TRUTH_PART = 100_000, 10_000
OBJECTS = {3: 3.0, 20: 5.0}
"""Classes -> objects in an image; 7.3 where there is no entry, as in COCO."""
SEED_SPREAD = {"bbox": 0.16, "sem_seg": 0.03, "panoptic": 0.03}


def world_of(task: str, classes: int, kind: str) -> World | SegmentationWorld:
    options = WORLDS[kind]
    if task == "bbox":
        return World(classes, OBJECTS.get(classes, 7.3), **options)
    return SegmentationWorld(task, classes, **{name: value for name, value in options.items() if name != "rare_worse"})


def measured_runs(
    world: World | SegmentationWorld,
    rng: np.random.Generator,
    images: int,
    runs: Iterable[tuple[float, float]] = ((0, 0),),
) -> list[Measured]:
    """Runs on the same images; each is how much better it is, and the spread of its seed."""
    if isinstance(world, World):
        scene = world.scene(rng, images)
        return [MeasuredAP(world.matches(rng, scene, world.training(rng, *run))) for run in runs]
    return [*world.sums(rng, images, tuple(skill + rng.normal(0, spread) for skill, spread in runs))]


def truth_of(task: str, classes: int, kind: str, skill: float = 0.0) -> dict[str, float]:
    """The numbers of 100,000 images."""
    world, rng = world_of(task, classes, kind), np.random.default_rng([7, classes])
    if isinstance(world, World):
        return MeasuredAP(world.matches(rng, world.scene(rng, TRUTH_IMAGES), world.training(rng, skill))).values()
    total: dict[str, np.ndarray] = {}
    for _ in range(TRUTH_IMAGES // TRUTH_PART):
        part = world.sums(rng, TRUTH_PART, (skill,))[0]
        for name, column in part.columns.items():
            total[name] = total.get(name, 0) + column.sum(axis=0, keepdims=True)
    return ImageSums(task, ["all"], part.classes, part.things, total).values()


def sample_of(number: int, task: str, classes: int, images: int, kind: str, methods: bool) -> dict[str, tuple]:
    """One sample: name of a number, or of another method for the first number -> low, high, number."""
    rng = np.random.default_rng([11, classes, images, number])
    measured = measured_runs(world_of(task, classes, kind), rng, images)[0]
    values, found = measured.values(), measured_intervals(measured, seed=number)
    rows = {name: (*found.get(name, (np.nan, np.nan)), value) for name, value in values.items()}
    if methods:
        leading = next(iter(values))
        rows |= {name: (*ends, values[leading]) for name, ends in other_methods(measured, leading, rng).items()}
    return rows


def other_methods(measured: Measured, name: str, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    count, value = measured.num_images, measured.values()[name]
    drawn = mean_of_classes(measured.of_classes(resample_weights(rng, count, 400))[name])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    halves = np.zeros((count, 400), np.int32)
    for column in halves.T:
        column[rng.permutation(count)[: count // 2]] = 1
    half = mean_of_classes(measured.of_classes(halves)[name])
    error, shift = float(np.nanstd(half)), float(np.nanmean(half)) - value
    more = shift / (2**0.5 - 1)  # where the bias falls by the square root of the number of images
    spread = 1.96 * float(np.nanstd(drawn))
    return {
        "percentiles": (low, high),
        "basic": (2 * value - high, 2 * value - low),
        "normal": (value - spread, value + spread),
        "half-samples": (value - 1.96 * error, value + 1.96 * error),
        "half-samples, extrapolated": (value - more - 1.96 * error, value - more + 1.96 * error),
    }


def coverage(given: argparse.Namespace) -> None:
    print(
        "| task | classes | images | world | number | true | mean of samples | interval holds the truth | none given |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for task, kind in itertools.product(given.task, given.world):
        for (classes, images), samples in cells_of(given, CELLS[task]).items():
            truth = truth_of(task, classes, kind)
            work = partial(sample_of, task=task, classes=classes, images=images, kind=kind, methods=given.methods)
            rows = run(work, given.samples or samples, given.processes)
            leading = next(iter(truth))
            for name in rows[0]:
                low, high, value = np.array([row[name] for row in rows]).T
                true = truth.get(name, truth[leading])
                has = ~np.isnan(low)
                held = float(np.mean((low[has] <= true) & (true <= high[has]))) if has.any() else np.nan
                error = (held * (1 - held) / max(has.sum(), 1)) ** 0.5
                print(
                    f"| {task} | {classes} | {images} | {kind} | {name} | {true:.4f} | {value.mean():.4f} | "
                    f"{100 * held:.1f} ± {100 * error:.1f} % | {(~has).sum()} of {len(rows)} |",
                    flush=True,
                )


def skill_for(task: str, classes: int, points: float) -> float:
    """The skill of a detector that is this many points better than the plain one, by bisection."""
    if not points:
        return 0.0
    base = next(iter(truth_of(task, classes, "plain").values()))
    low, high = 0.0, 1.5
    for _ in range(9):
        middle = (low + high) / 2
        reached = next(iter(truth_of(task, classes, "plain", middle).values())) - base
        low, high = (middle, high) if reached < points / 100 else (low, middle)
    return (low + high) / 2


def pair_of(
    number: int, task: str, classes: int, images: int, runs: int, skill: float
) -> tuple[float, float, float, float]:
    """One pair's p-value, difference, and the ends of its interval."""
    rng = np.random.default_rng([13, classes, images, runs, number])
    spread = SEED_SPREAD[task] if runs > 1 else 0.0
    plan = [(0.0, spread)] * runs + [(skill, spread)] * runs
    measured = measured_runs(world_of(task, classes, "plain"), rng, images, plan)
    found = compare_measured(measured[:runs], measured[runs:], seed=number)
    one = next(iter(found.differences.values()))
    return one.p_value, one.difference, one.low, one.high


def compare(given: argparse.Namespace) -> None:
    print(
        "| task | classes | images | runs a side | true difference | mean difference | called real | interval holds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    cells = {"bbox": {(20, 200): 0}, "sem_seg": {(20, 200): 0}, "panoptic": {(20, 200): 0}}
    for task in given.task:
        for (classes, images), runs, points in itertools.product(
            cells_of(given, cells[task]), given.runs, given.points
        ):
            skill = skill_for(task, classes, points)
            work = partial(pair_of, task=task, classes=classes, images=images, runs=runs, skill=skill)
            p_value, difference, low, high = np.array(run(work, given.pairs, given.processes)).T
            real, true = float(np.mean(p_value < 0.05)), points / 100
            held = float(np.mean((low <= true) & (true <= high)))
            print(
                f"| {task} | {classes} | {images} | {runs} | {points:g} | {100 * difference.mean():+.2f} | "
                f"{100 * real:.1f} % | {100 * held:.1f} % |",
                flush=True,
            )


def cells_of(given: argparse.Namespace, known: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    if not given.cells:
        return known
    return {cell: known.get(cell, 400) for cell in (tuple(map(int, text.split("x"))) for text in given.cells)}


def run(work: Callable, count: int, processes: int) -> list:
    if processes == 1:
        return [work(number) for number in range(count)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(work, range(count), chunksize=1)


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one, other = commands.add_parser("coverage"), commands.add_parser("compare")
    for command in (one, other):
        command.add_argument("--task", nargs="+", choices=list(CELLS), default=list(CELLS))
        command.add_argument("--cells", nargs="+", metavar="CLASSESxIMAGES")
        command.add_argument("--processes", type=int, default=2)
    one.add_argument("--samples", type=int, help="default: 1000, fewer in cells of many images")
    one.add_argument("--world", nargs="+", choices=list(WORLDS), default=["plain"])
    one.add_argument("--methods", action="store_true", help="also other ways to an interval of the first number")
    other.add_argument("--runs", type=int, nargs="+", default=[1, 3])
    other.add_argument("--pairs", type=int, default=400)
    other.add_argument("--points", type=float, nargs="+", default=[0, 1, 2, 5])
    given = parser.parse_args()
    coverage(given) if given.command == "coverage" else compare(given)


if __name__ == "__main__":
    main()
