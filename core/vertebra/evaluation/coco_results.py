"""COCO result files of detections: what pycocotools' `loadRes` and other tools read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vertebra.evaluation.coco_json import json_segmentation, json_text
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco import DetectionColumns
from vertebra_eval.compare_runs import FACTS_FILE
from vertebra_eval.files import open_whole, write_text

__all__ = ["coco_records", "result_file", "write_results"]

_AT_A_TIME = 5000  # records


def result_file(folder: Path, number: int, task: str) -> Path:
    """Where a task's results go: the first task's are `coco_results.json`, another's `coco_results_<task>.json`."""
    return folder / ("coco_results.json" if number == 0 else f"coco_results_{task}.json")


def write_results(
    folder: Path, truth: GroundTruth, table: DetectionColumns, tasks: Sequence[str], *, written: bool = False
) -> dict[str, Path]:
    """One result file per task, with the dataset's image and category ids; numbers in full precision.

    Each has only the fields of its task: loadRes would take areas from boxes otherwise. An infinite score is 1e999, see
    `json_text`. Ground truth that came from no file is written too, and `FACTS_FILE`.

    Args:
        written: the result files are there already (a `ResultStream` wrote them), only the others are missing.
    Returns:
        Name in the list of written files -> path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, task in enumerate(tasks):
        path = result_file(folder, number, task)
        files[path.stem] = path
        if not written:
            _write_list(path, coco_records(table, truth, task))
    if truth.annotated and truth.file is None:
        files["coco_ground_truth"] = folder / "coco_ground_truth.json"
        truth.write(files["coco_ground_truth"])
    files["coco_evaluation"] = folder / FACTS_FILE
    facts = _facts(truth, files.get("coco_ground_truth", truth.file), folder)
    facts["results"] = {task: path.name for task, path in zip(tasks, files.values(), strict=False)}
    write_text(files["coco_evaluation"], json.dumps(facts, default=str))
    return files


def _facts(truth: GroundTruth, file: Path | None, folder: Path) -> dict:
    """On what the results were judged; the ground truth's path is relative to `folder` where it lies in it."""
    place = None
    if file is not None:
        place = file.name if file.parent == folder else os.path.abspath(file)
    return {
        "ground_truth": place,
        "image_ids": truth.image_ids,
        "category_ids": truth.category_ids,
        "fingerprint": _fingerprint(truth),
    }


def _fingerprint(truth: GroundTruth) -> str:
    """The same for the same images, classes and annotations, in whatever order and file they come."""
    found = truth.objects
    numbers = np.concatenate([found.boxes, found.areas[:, None]], axis=1).tolist()
    columns = (found.image.tolist(), found.category.tolist(), numbers, found.crowd.tolist())
    objects = sorted(
        [str(truth.image_ids[i]), str(truth.category_ids[k]), [round(value, 3) for value in values], crowd]
        for i, k, values, crowd in zip(*columns, strict=True)
    )
    classes = sorted([str(key), name] for key, name in zip(truth.category_ids, truth.class_names, strict=True))
    content = json.dumps([sorted(map(str, truth.image_ids)), classes, objects])
    return hashlib.sha256(content.encode()).hexdigest()


def _write_list(path: Path, parts: Iterator[list[dict]]) -> None:
    """A JSON list part by part, so that only one part is in memory."""
    with open_whole(path, text=True) as file:
        file.write("[")
        for number, part in enumerate(parts):
            file.write(", " * (number > 0) + json_text(part)[1:-1])
        file.write("]")


def coco_records(table: DetectionColumns, truth: GroundTruth, task: str) -> Iterator[list[dict]]:
    """The detections as COCO's results, some at a time. Without a column of masks or keypoints there are none."""
    if (task in ("segm", "boundary") and table.masks is None) or (task == "keypoints" and table.keypoints is None):
        return
    for start in range(0, len(table), _AT_A_TIME):
        rows = slice(start, start + _AT_A_TIME)
        if task == "bbox":
            name, values = "bbox", table.boxes[rows].tolist()
        elif task in ("segm", "boundary") and table.masks is not None:
            name, values = "segmentation", map(json_segmentation, table.masks[rows])
        else:
            points = np.asarray(table.keypoints)[rows]
            name, values = "keypoints", points.reshape(len(points), -1).tolist()
        columns = (table.image[rows].tolist(), table.category[rows].tolist(), table.scores[rows].tolist())
        yield [
            {"image_id": truth.image_ids[i], "category_id": truth.category_ids[k], "score": score, name: value}
            for i, k, score, value in zip(*columns, values, strict=True)
        ]
