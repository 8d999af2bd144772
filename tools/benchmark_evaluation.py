"""Evaluation side by side, in one run: Vertebra's and its drop-in, the reference tools, and others if installed.

    python tools/benchmark_evaluation.py [--task bbox segm keypoints lvis panoptic] [--from records files] [--repeats 3]
                                         [--images N] [--per-image N] [--only NAME ...] [--json FILE]

The data are synthetic and seeded (`tools/evaluation_data.py`). Every contestant runs in a process of its own, and
rounds are interleaved, so that a busy machine slows all of them alike. `--from records` hands over lists of dicts that
are read already, `--from files` paths; panoptic segmentation is always read from files. Reported are medians of

    read       records or files to the contestant's own form
    evaluate   matching and accumulating
    cpu        processor seconds of these, over all threads; on a busy machine the one to trust
    process    processor seconds of the whole process: also start and imports, and for records the reading of JSON
    memory     peak of the process in both stages, beyond what it had before

the ratio of processor seconds to Vertebra's, and how far the arrays are from those of the reference tool: "bits" where
they are equal to the last bit. What is not installed, fails or does not have a task is named.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TASKS = {"bbox": (5000, 100), "segm": (500, 100), "keypoints": (2000, 20), "lvis": (1000, 300), "panoptic": (300, 0)}
"""Images, and detections of each."""
CONTESTANTS = {
    "vertebra-eval": "vertebra_eval",
    "its drop-in": "vertebra_eval.pycocotools",
    "pycocotools": "pycocotools",
    "faster-coco-eval": "faster_coco_eval",
    "ultrafast-pycocotools": "ultrafast_pycocotools",
    "hotcoco": "hotcoco",
    "vernier": "vernier",
    "lvis": "lvis",
    "panopticapi": "panopticapi",
}
"""Name -> module. Those after pycocotools do not come with Vertebra: install them where they are to be compared."""
REFERENCE = {"lvis": "lvis", "panoptic": "panopticapi"}
Steps = tuple[Callable[[Any, Any], Any], Callable[[Any], dict[str, Any]]]


def steps_of(name: str, task: str, folder: Path) -> Steps | None:
    """read(gt, dt), which are records or paths, and evaluate(what that gives) -> arrays; None: it has no such task."""
    if task == "panoptic":
        return {"vertebra-eval": _own_panoptic, "hotcoco": _hotcoco_panoptic, "panopticapi": _panopticapi}.get(
            name, lambda folder: None
        )(folder)
    if name == "vertebra-eval":
        return _own(task)
    if task == "lvis":
        return {"lvis": _lvis, "hotcoco": _hotcoco_lvis}.get(name, lambda: None)()
    return None if name in ("lvis", "panopticapi") else _like_pycocotools(name, task)


def _own(task: str) -> Steps:
    from vertebra_eval.coco import evaluate_columns, read_detections, read_ground_truth
    from vertebra_eval.coco.data import read_coco
    from vertebra_eval.lvis import lvis_evaluate

    if task == "lvis":
        return lambda gt, dt: (gt, dt), lambda files: {
            name.removeprefix("bbox/"): value for name, value in lvis_evaluate(*files).items()
        }

    def read(gt: Any, dt: Any) -> tuple:
        truth = read_ground_truth(gt if isinstance(gt, dict) else read_coco(gt), task)
        return truth, read_detections(dt, truth, task)

    def evaluate(columns: tuple) -> dict:
        result = evaluate_columns(*columns, task)
        return {"precision": result.precision, "recall": result.recall, "scores": result.scores}

    return read, evaluate


def _like_pycocotools(name: str, task: str) -> Steps:
    if name == "faster-coco-eval":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation
    elif name == "hotcoco":
        from hotcoco import COCO
        from hotcoco import COCOeval as Evaluation
    elif name == "vernier":  # it takes over from pycocotools after reading
        from pycocotools.coco import COCO
        from vernier import COCOeval as Evaluation
    else:
        COCO = importlib.import_module(f"{CONTESTANTS[name]}.coco").COCO
        Evaluation = importlib.import_module(f"{CONTESTANTS[name]}.cocoeval").COCOeval

    def read(gt: Any, dt: Any) -> tuple:
        if name == "hotcoco" or not isinstance(gt, dict):
            truth = COCO(gt)
        else:
            truth = COCO()
            truth.dataset = gt
            truth.createIndex()
        found = truth.loadRes(dt)
        if name == "vernier":  # it takes lists alone
            for record in found.dataset["annotations"]:
                record["bbox"] = list(record["bbox"])
        return truth, found

    def evaluate(read: tuple) -> dict:
        tool = Evaluation(*read, task)
        tool.evaluate()
        tool.accumulate()
        return {key: tool.eval[key] for key in ("precision", "recall", "scores")}

    return read, evaluate


def _lvis() -> Steps:
    np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 is older than the numpy without it
    from lvis import LVIS, LVISEval, LVISResults

    def evaluate(read: tuple) -> dict:
        tool = LVISEval(*read, "bbox")
        tool.run()
        return dict(tool.get_results())

    def read(gt: Any, dt: Any) -> tuple:
        truth = LVIS(gt)
        return truth, LVISResults(truth, dt if isinstance(dt, list) else json.loads(Path(dt).read_text()))

    return read, evaluate


def _hotcoco_lvis() -> Steps:
    from hotcoco import LVIS, LVISEval, LVISResults

    def read(gt: Any, dt: Any) -> tuple:
        truth = LVIS(gt)
        return truth, LVISResults(truth, dt)

    def evaluate(read: tuple) -> dict:
        tool = LVISEval(*read, "bbox")
        tool.run()
        return dict(tool.get_results())

    return read, evaluate


def _own_panoptic(folder: Path) -> Steps:
    from vertebra_eval.panoptic.files import panoptic_evaluate

    def evaluate(_: Any) -> dict:
        found = panoptic_evaluate(folder / "gt.json", pred_json=folder / "dt.json", threads=1)
        return {name: getattr(found, name).pq for name in ("all", "things", "stuff")}

    return lambda gt, dt: None, evaluate


def _hotcoco_panoptic(folder: Path) -> Steps:
    from hotcoco.panoptic import PanopticEval

    def evaluate(_: Any) -> dict:
        files = [str(folder / name) for name in ("gt.json", "dt.json")]
        tool = PanopticEval(*files, gt_folder=str(folder / "gt"), pred_folder=str(folder / "dt"))
        tool.evaluate()
        return {name: tool.results()[name.title()]["pq"] for name in ("all", "things", "stuff")}

    return lambda gt, dt: None, evaluate


def _panopticapi(folder: Path) -> Steps:
    from panopticapi.evaluation import pq_compute_single_core

    def evaluate(_: Any) -> dict:
        gt, dt = (json.loads((folder / name).read_text()) for name in ("gt.json", "dt.json"))
        categories = {category["id"]: category for category in gt["categories"]}
        predicted = {record["image_id"]: record for record in dt["annotations"]}
        pairs = [(record, predicted[record["image_id"]]) for record in gt["annotations"]]
        found = pq_compute_single_core(0, pairs, str(folder / "gt"), str(folder / "dt"), categories)
        groups = {"all": None, "things": True, "stuff": False}
        return {name: found.pq_average(categories, isthing=group)[0]["pq"] for name, group in groups.items()}

    return lambda gt, dt: None, evaluate


def run_one(name: str, task: str, source: str, folder: Path) -> dict[str, Any] | None:
    """Times and memory of one contestant, in this process; its arrays go to `<folder>/<name>.npz`."""
    with contextlib.redirect_stdout(io.StringIO()):
        steps = steps_of(name, task, folder)
        if steps is None:
            return None
        read, evaluate = steps
        inputs: list[Any] = [str(folder / "gt.json"), str(folder / "dt.json")]
        if source == "records" and task != "panoptic":
            inputs = [json.loads(Path(path).read_text()) for path in inputs]
        if name == "lvis":
            inputs[0] = str(folder / "gt.json")  # it reads ground truth from files alone
        gc.collect()
        before = _memory("VmRSS", reset=True)
        times = [(time.perf_counter(), time.process_time())]
        found = read(*inputs)
        times.append((time.perf_counter(), time.process_time()))
        arrays = evaluate(found)
        times.append((time.perf_counter(), time.process_time()))
    np.savez(folder / f"{name}.npz", **{key: np.asarray(value, float) for key, value in arrays.items()})
    (begin, cpu), (middle, _), (end, cpu_end) = times
    memory = (_memory("VmHWM") - before) / 1024
    return {"read": middle - begin, "evaluate": end - middle, "cpu": cpu_end - cpu, "memory": memory}


def _memory(name: str, reset: bool = False) -> int:
    """KiB of this process as Linux tells; `reset` lets the peak begin anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def compare(task: str, source: str, options: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """All contestants, round after round, each in a new process; the medians."""
    rounds: dict[str, list[dict]] = {}
    left = [name for name in options.only or CONTESTANTS if importlib.util.find_spec(CONTESTANTS[name])]
    for number in range(options.repeats):
        for name in list(left):
            if number and rounds[name][0]["cpu"] > 10 * options.patience:
                continue  # the slow ones run once
            command = [sys.executable, __file__, "--child", name, "--task", task, "--from", source]
            process = subprocess.Popen([*command, "--folder", str(folder)], stdout=-1, stderr=-1, text=True)
            assert process.stdout is not None and process.stderr is not None
            told, errors = process.stdout.read(), process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            one = None if process.returncode else json.loads(told.splitlines()[-1])
            if one is None:
                left.remove(name)
                if process.returncode:
                    print(f"{name} failed: {errors.strip().splitlines()[-1] if errors.strip() else status}")
                continue
            rounds.setdefault(name, []).append({**one, "process": usage.ru_utime + usage.ru_stime})
    return {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in rounds.items()
    }


def show(task: str, source: str, table: dict[str, dict], folder: Path, sizes: tuple[int, int]) -> None:
    print(f"\n{task}, from {source}: {sizes[0]} images" + f" x {sizes[1]} detections" * bool(sizes[1]))
    print(f"apart: from {REFERENCE.get(task, 'pycocotools')}")
    heads = ("read s", "evaluate s", "cpu s", "process s", "MiB", "x cpu", "apart")
    print(f"{'':22}" + "".join(f"{text:>12}" for text in heads))
    own = table.get("vertebra-eval")
    for name, row in sorted(table.items(), key=lambda item: item[1]["cpu"]):
        row["apart"] = _apart(folder, name, REFERENCE.get(task, "pycocotools"))
        cells = [f"{row[key]:.2f}" for key in ("read", "evaluate", "cpu", "process")] + [f"{row['memory']:.0f}"]
        cells += [f"{row['cpu'] / own['cpu']:.2f}" if own else "-", row["apart"]]
        print(f"{name:22}" + "".join(f"{text:>12}" for text in cells), flush=True)


def _apart(folder: Path, name: str, reference: str) -> str:
    """How far the arrays are from the reference's."""
    if not (folder / f"{reference}.npz").exists():
        return "-"
    one, other = (np.load(folder / f"{each}.npz") for each in (name, reference))
    both = [(one[key], other[key]) for key in other.files if key in one.files]
    if not both or any(a.shape != b.shape for a, b in both):
        return "no arrays"
    if all(a.tobytes() == b.tobytes() for a, b in both):
        return "bits"
    return f"{max(float(np.nanmax(np.abs(a - b))) for a, b in both):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--from", dest="source", nargs="+", choices=["records", "files"], default=["records", "files"])
    parser.add_argument("--images", type=int, help="for all tasks; by default by the task")
    parser.add_argument("--per-image", type=int, help="detections")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=1, help="who takes more than 10 times this runs once")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_one(options.child, options.task[0], options.source[0], options.folder)))
        return
    from evaluation_data import make_coco_files, make_panoptic_files

    missing = [name for name in options.only or CONTESTANTS if not importlib.util.find_spec(CONTESTANTS[name])]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    figures = {}
    for task in options.task:
        images, per_image = options.images or TASKS[task][0], options.per_image or TASKS[task][1]
        with tempfile.TemporaryDirectory() as name:
            if task == "panoptic":
                make_panoptic_files(Path(name), images)
            else:
                make_coco_files(Path(name), task, images, per_image)
            for source in options.source if task != "panoptic" else ["files"]:
                table = compare(task, source, options, Path(name))
                show(task, source, table, Path(name), (images, per_image))
                figures[f"{task}, {source}"] = table
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
