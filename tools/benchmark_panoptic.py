"""Panoptic quality of made images: how long `panoptic_evaluate` takes, and panopticapi where it can be imported.

    python tools/benchmark_panoptic.py [--images 300] [--distinct 50] [--segments 20] [--size 480 640] [--threads 1 2 4]

PNG files are written as Pillow does by itself; there are `--distinct` of each kind, named by several images in turn.
Both read the same PNG and JSON files in one process (panopticapi by its `pq_compute_single_core`), the best of
`--repeats` runs counts; the first run, in which numba starts, is printed by itself. The time of reading the PNG files
alone, by Pillow as panopticapi does it, is printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vertebra.evaluation import panoptic_evaluate
from vertebra_eval.panoptic.counts import Segments, count_image
from vertebra_eval.panoptic.runs import IdRuns

CATEGORIES = [{"id": 10 * i + 1, "name": f"class {i}", "isthing": int(i < 80)} for i in range(133)]


class Cost(NamedTuple):
    """Seconds on the clock, and seconds of processor time, which other programs do not disturb."""

    wall: float
    processor: float


def main() -> None:
    options = _options()
    print(f"{options.images} images of {options.size[0]}x{options.size[1]}, about {options.segments} segments each")
    print(f"{'milliseconds per image':40s} {'clock':>8s} {'processor':>10s}")

    def show(what: str, cost: Cost, compare: Cost | None = None) -> None:
        wall, processor = (1000 * seconds / options.images for seconds in cost)
        ratio = ""
        if compare is not None:
            ratio = f"  {compare.wall / cost.wall:5.1f} / {compare.processor / cost.processor:.1f} times as fast"
        print(f"{what:40s} {wall:8.2f} {processor:10.2f}{ratio}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, options.images, options.segments, tuple(options.size), options.distinct)
        reading = _best(options.repeats, lambda: _read_all(folder))
        show("reading the PNG files with Pillow", reading)
        theirs, quality = _time_panopticapi(folder, options.repeats)
        if theirs is None:
            print("panopticapi is not installed: no comparison")
        else:
            show("panopticapi, one process", theirs)
        for threads in options.threads:
            work = functools.partial(
                panoptic_evaluate, folder / "gt.json", pred_json=folder / "pred.json", threads=threads
            )
            if threads == options.threads[0]:
                show("vertebra, the first time", _best(1, work), theirs)
            result = work()
            show(f"vertebra, one process, {threads} thread(s)", _best(options.repeats, work), theirs)
            if quality is not None:
                assert abs(result.all.pq - quality) < 1e-12, (result.all.pq, quality)
        counting = _time_counting(folder, options.repeats)
        apart = None if theirs is None else Cost(theirs.wall - reading.wall, theirs.processor - reading.processor)
        show("without reading: vertebra, from memory", counting, apart)


def make_files(
    folder: Path, images: int, segments: int, size: tuple[int, int], distinct: int | None = None, seed: int = 0
) -> None:
    """Ground truth with wavy regions, void and crowds; predictions with moved borders and some wrong classes."""
    rng = np.random.default_rng(seed)
    truth, predicted = [], []
    for part in ("gt", "pred"):
        (folder / part).mkdir(parents=True)
    for image in range(min(images, distinct or images)):
        ys, xs = np.mgrid[: size[0], : size[1]].astype(np.float64)
        wave = _wave(rng, size)
        centers = rng.random((segments, 2)) * size
        ids = 1 + rng.choice(2**24 - 2, size=segments, replace=False)
        true_row = _nearest(centers, ys + 6 * wave[0], xs + 6 * wave[1])
        wave = _wave(rng, size)
        pred_row = _nearest(centers + rng.normal(0, 4, centers.shape), ys + 6 * wave[0], xs + 6 * wave[1])
        classes = rng.integers(len(CATEGORIES), size=segments)
        guesses = np.where(rng.random(segments) < 0.8, classes, rng.integers(len(CATEGORIES), size=segments))
        for part, rows, labels, records in (("gt", true_row, classes, truth), ("pred", pred_row, guesses, predicted)):
            pixels = ids[rows]
            pixels[(wave[0] > 1.2) & (rows % 3 == 0)] = 0
            present, areas = np.unique(pixels[pixels > 0], return_counts=True)
            row_of = {int(i): row for row, i in enumerate(ids)}
            infos = [
                {
                    "id": int(i),
                    "category_id": CATEGORIES[labels[row_of[int(i)]]]["id"],
                    "area": int(area),
                    "iscrowd": int(part == "gt" and row_of[int(i)] == 0),
                }
                for i, area in zip(present, areas, strict=True)
            ]
            colors = np.stack([pixels & 255, pixels >> 8 & 255, pixels >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(colors).save(folder / part / f"{image}.png")
            records.append({"image_id": image, "file_name": f"{image}.png", "segments_info": infos})
    for records in (truth, predicted):
        records += [{**records[image % len(records)], "image_id": image} for image in range(len(records), images)]
    (folder / "gt.json").write_text(json.dumps({"annotations": truth, "categories": CATEGORIES}))
    (folder / "pred.json").write_text(json.dumps({"annotations": predicted}))


def _wave(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(2, H, W): smooth noise about 0, of size about 1."""
    ys, xs = np.mgrid[: size[0], : size[1]] / 40.0
    waves = [
        sum(np.sin(f * (a * ys + b * xs) + c) for f, a, b, c in rng.normal(1, 1, (4, 4))) / 2**0.5 for _ in range(2)
    ]
    return np.stack(waves)


def _nearest(centers: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    distances = [(ys - y) ** 2 + (xs - x) ** 2 for y, x in centers]
    return np.argmin(distances, axis=0)


def _read_all(folder: Path) -> None:
    for part in ("gt", "pred"):
        for record in json.loads((folder / f"{part}.json").read_text())["annotations"]:
            np.asarray(Image.open(folder / part / record["file_name"]))


def _time_panopticapi(folder: Path, repeats: int) -> tuple[Cost | None, float | None]:
    """(cost, its PQ), or two times None if it is not there."""
    if importlib.util.find_spec("panopticapi") is None:
        return None, None
    from panopticapi.evaluation import pq_compute_single_core

    categories = {record["id"]: record for record in CATEGORIES}

    def work() -> float:
        files = (folder / "gt.json", folder / "pred.json")
        truth, predicted = (json.loads(file.read_text())["annotations"] for file in files)
        pairs = list(zip(truth, predicted, strict=True))
        with contextlib.redirect_stdout(io.StringIO()):
            stat = pq_compute_single_core(0, pairs, str(folder / "gt"), str(folder / "pred"), categories)
            return stat.pq_average(categories, isthing=None)[0]["pq"]

    return _best(repeats, work), work()


def _time_counting(folder: Path, repeats: int) -> Cost:
    """For all images, from maps in memory as a model gives them."""
    rows = {record["id"]: row for row, record in enumerate(CATEGORIES)}
    images = []
    for name in ("gt", "pred"):
        records = json.loads((folder / f"{name}.json").read_text())["annotations"]
        files = {folder / name / r["file_name"] for r in records}
        maps = {file.name: np.asarray(Image.open(file)).astype(np.int64) @ (1, 256, 65536) for file in files}
        images.append([(maps[r["file_name"]], Segments.of(r["segments_info"], rows, "")) for r in records])

    def work() -> None:
        for (true_map, truth), (pred_map, predicted) in zip(*images, strict=True):
            count_image(IdRuns.of(true_map), truth, IdRuns.of(pred_map), predicted, "")

    return _best(repeats, work)


def _best(repeats: int, work: Callable[[], object]) -> Cost:
    """The least of several runs, of either time by itself."""
    costs = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        costs.append((time.perf_counter() - wall, time.process_time() - processor))
    return Cost(*(min(column) for column in zip(*costs, strict=True)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--distinct", type=int, default=50)
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
