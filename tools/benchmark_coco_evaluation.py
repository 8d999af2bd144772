"""COCO evaluation side by side, in one run: Vertebra's and its drop-in, pycocotools', and others if installed.

    python tools/benchmark_coco_evaluation.py [--task bbox|segm] [--images 5000] [--repeats 3] [--only NAME ...]

The data are synthetic and seeded: about 7 objects and 100 detections an image, 80 categories of uneven frequency, some
detections near objects and most of low score. Every contestant runs in a process of its own, on the same records (lists
of dicts, as json.load gives them); rounds are interleaved, so that a busy machine slows all of them alike. Reported are

    read       records to the contestant's own form: COCO() and loadRes(), or columns
    evaluate   evaluate() and accumulate(), or evaluate_columns()
    cpu        processor time of these, over all threads; on a busy machine the one to trust
    memory     peak of the process in both stages beyond the records

as medians over the rounds, the ratios to Vertebra's, and whether precision, recall and scores equal pycocotools'.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

CATEGORIES, HEIGHT, WIDTH = 80, 480, 640
CONTESTANTS = {
    "vertebra": "vertebra_eval",
    "vertebra drop-in": "vertebra_eval.pycocotools",
    "pycocotools": "pycocotools",
    "faster-coco-eval": "faster_coco_eval",
    "ultrafast-pycocotools": "ultrafast_pycocotools",
}
"""Name -> module. The last two are not dependencies of Vertebra: install them where they are to be compared."""


def make_records(images: int, per_image: int, task: str, seed: int) -> tuple[dict, list[dict]]:
    """COCO ground truth and results, the same for everyone with the same seed."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(7.3, images)
    image = np.repeat(np.arange(images), counts)
    category = (CATEGORIES * rng.random(len(image)) ** 2.2).astype(int)  # a few frequent, many rare
    size = np.exp(rng.normal(4, 1, (len(image), 2))).clip(4, [WIDTH * 0.9, HEIGHT * 0.9])
    boxes = np.concatenate([rng.random((len(image), 2)) * ([WIDTH, HEIGHT] - size), size], axis=1).round(2)
    area = (boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.8, len(image))).round(2)
    crowd = rng.random(len(image)) < 0.01
    annotations = [
        {"id": row + 1, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": int(o)}
        for row, (i, c, b, a, o) in enumerate(
            zip(image.tolist(), category.tolist(), boxes.tolist(), area.tolist(), crowd.tolist(), strict=True)
        )
    ]
    found_image = np.repeat(np.arange(images), per_image)
    number, have = np.tile(np.arange(per_image), images), np.repeat(counts, per_image)
    near = number < 4 * have
    source = (np.repeat(np.cumsum(counts) - counts, per_image) + number % np.maximum(have, 1))[near]
    found_category = rng.integers(0, CATEGORIES, len(found_image))
    found_category[near] = np.where(rng.random(near.sum()) < 0.85, category[source], found_category[near])
    size = np.exp(rng.normal(4, 1, (len(found_image), 2))).clip(4, [WIDTH * 0.9, HEIGHT * 0.9])
    found = np.concatenate([rng.random((len(found_image), 2)) * ([WIDTH, HEIGHT] - size), size], axis=1)
    found[near] = boxes[source] + rng.normal(0, 0.12, (near.sum(), 4)) * np.tile(boxes[source][:, 2:], 2)
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    score = np.where(near, rng.beta(2, 2, len(near)), rng.beta(1, 8, len(near))).round(3)
    results = [
        {"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s}
        for i, c, b, s in zip(
            found_image.tolist(), found_category.tolist(), found.round(2).tolist(), score.tolist(), strict=True
        )
    ]
    if task == "segm":
        _add_masks(annotations, results, rng)
    listed = [{"id": i + 1, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(images)]
    categories = [{"id": c + 1, "name": f"class {c}"} for c in range(CATEGORIES)]
    return {"images": listed, "annotations": annotations, "categories": categories}, results


def _add_masks(annotations: list[dict], results: list[dict], rng: np.random.Generator) -> None:
    """Wobbly outlines of 24 corners in the boxes: polygons for objects, run lengths for detections."""
    from pycocotools import mask

    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for record in [*annotations, *results]:
        x, y, w, h = record["bbox"]
        radius = rng.uniform(0.35, 0.5, 24)
        corners = np.stack([x + w / 2 + w * radius * np.cos(angle), y + h / 2 + h * radius * np.sin(angle)], axis=1)
        polygon = corners.clip(0, [WIDTH, HEIGHT]).round(2).reshape(-1).tolist()
        if "score" in record:
            encoded = mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]
            record["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
            del record["bbox"]
        else:
            record["segmentation"] = [polygon]


class PeakMemory:
    """Peak resident memory above where it began, in MiB, sampled every 5 ms by a thread (Linux)."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._begin = self._peak = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._resident())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mib = (max(self._peak, self._resident()) - self._begin) / 2**20


def run_one(name: str, gt: dict, dt: list[dict], task: str) -> dict:
    """Times, memory and a fingerprint of the arrays of one contestant, in this process."""
    if name == "vertebra":
        from vertebra_eval.coco import evaluate_columns, read_detections, read_ground_truth

        def read() -> tuple:
            truth = read_ground_truth(gt, task)
            return truth, read_detections(dt, truth, task)

        def evaluate(inputs: tuple) -> dict:
            result = evaluate_columns(*inputs, task)
            return {"precision": result.precision, "recall": result.recall, "scores": result.scores}

    else:
        module = CONTESTANTS[name]
        if name == "faster-coco-eval":
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as Evaluation
        else:
            COCO = importlib.import_module(f"{module}.coco").COCO
            Evaluation = importlib.import_module(f"{module}.cocoeval").COCOeval

        def read() -> tuple:
            truth = COCO()
            truth.dataset = gt
            truth.createIndex()
            return truth, truth.loadRes(dt)

        def evaluate(inputs: tuple) -> dict:
            tool = Evaluation(*inputs, task)
            tool.evaluate()
            tool.accumulate()
            return tool.eval

    with contextlib.redirect_stdout(io.StringIO()), PeakMemory() as memory:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        inputs = read()
        middle, cpu_middle = time.perf_counter(), time.process_time()
        arrays = evaluate(inputs)
        end, cpu_end = time.perf_counter(), time.process_time()
    digest = hashlib.sha256()
    for key in ("precision", "recall", "scores"):
        digest.update(np.ascontiguousarray(arrays[key], dtype=np.float64).tobytes())
    precision = np.asarray(arrays["precision"])
    ap = float(precision[precision > -1].mean())
    return {
        "read": middle - begin,
        "evaluate": end - middle,
        "total": end - begin,
        "cpu evaluate": cpu_end - cpu_middle,
        "cpu total": cpu_end - cpu_begin,
        "memory": memory.mib,
        "digest": digest.hexdigest(),
        "mean precision": ap,
    }


def compare(options: argparse.Namespace) -> dict[str, dict]:
    """All contestants, round after round, each in a new process; the medians."""
    names = [name for name in options.only or CONTESTANTS if importlib.util.find_spec(CONTESTANTS[name])]
    rounds: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(options.repeats):
        for name in names:
            if number and name == "pycocotools" and not options.repeat_all:
                continue  # it alone takes longer than all others
            command = [sys.executable, __file__, "--child", name, "--task", options.task]
            command += ["--images", str(options.images), "--per-image", str(options.per_image)]
            command += ["--seed", str(options.seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                break
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
    table = {}
    for name in (name for name in names if rounds[name]):
        one = rounds[name]
        table[name] = {
            key: one[0][key] if isinstance(one[0][key], str) else statistics.median(r[key] for r in one)
            for key in one[0]
        }
        table[name]["rounds"] = len(one)
    return table


def show(table: dict[str, dict], options: argparse.Namespace) -> None:
    print(f"{options.task}: {options.images} images x {options.per_image} detections, {CATEGORIES} categories")
    head = ("read s", "evaluate s", "total s", "cpu eval s", "cpu s", "MiB", "equal")
    ratios = ("x evaluate", "x total", "x cpu eval", "x cpu", "x memory")
    print(f"{'':22}" + "".join(f"{text:>11}" for text in (*head, *ratios)))
    own, oracle = table.get("vertebra"), table.get("pycocotools")
    for name, row in table.items():
        times = [f"{row[key]:.2f}" for key in ("read", "evaluate", "total", "cpu evaluate", "cpu total")]
        equal = "-" if oracle is None else "yes" if row["digest"] == oracle["digest"] else "no"
        keys = ("evaluate", "total", "cpu evaluate", "cpu total", "memory")
        times_ours = [f"{row[key] / own[key]:.1f}" if own else "-" for key in keys]
        print(f"{name:22}" + "".join(f"{text:>11}" for text in (*times, f"{row['memory']:.0f}", equal, *times_ours)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["bbox", "segm"], default="bbox")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--per-image", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--repeat-all", action="store_true", help="pycocotools too; else it runs in the first round only"
    )
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        gt, dt = make_records(options.images, options.per_image, options.task, options.seed)
        print(json.dumps(run_one(options.child, gt, dt, options.task)))
        return
    table = compare(options)
    show(table, options)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
