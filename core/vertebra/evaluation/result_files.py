"""Result files of any tool, as COCO has them: read, checked, and turned into records to evaluate.

What is wrong with the file (no JSON, no list) or with a record's form (a field missing or of another type) is an
error. A record that has the right form but cannot be judged is left out and counted: an image or category the ground
truth lacks, a number that is NaN or infinite, a box of negative size, a mask of another size than its image, run
lengths that do not fill it. If nothing is left of a file, that is an error too. An empty list is a valid result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.errors import DataError
from vertebra.evaluation.analysis.reasons import boxes_look_like_xyxy, equal_scores, ids_apart
from vertebra.evaluation.ground_truth import GroundTruth

__all__ = ["ResultFile", "load_json", "read_results"]

_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_MOST_TOLD = 10  # bad records that an error lists


@dataclass
class ResultFile:
    """What a result file has for a task.

    Args:
        records: COCO records as in the file, their numbers untouched, but with the image's row and the class number
            for ids, `id` counting from 1, `iscrowd` 0, and `area` as pycocotools' loadRes sets it.
        num_records: in the file.
        dropped: why -> how many records were left out.
        notes: sentences about what was left out and what looks odd.
    """

    path: Path
    task: str
    records: list[dict]
    num_records: int
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_json(path: Path, what: str) -> Any:
    """A JSON file's content.

    Raises:
        DataError: it cannot be read, is empty or cut off; tells the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: {what} cannot be read: {err}") from err
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        at_end = isinstance(err, json.JSONDecodeError) and err.pos >= len(text.rstrip()) - 1
        hint = " (the file is empty)" if not text.strip() else " (the file seems cut off)" if at_end else ""
        raise DataError(f"{path}: {what} is no valid JSON: {err}{hint}") from err


def read_results(path: str | Path, truth: GroundTruth, task: str) -> ResultFile:
    """Read a COCO result file and keep what can be judged.

    Args:
        task: bbox, segm or keypoints; each record needs `image_id`, `category_id`, `score` and the task's field.

    Raises:
        DataError: no valid JSON, not a list, a record of wrong form, or not one usable record among some.
    """
    path = Path(path)
    content = load_json(path, "the result file")
    if not isinstance(content, list):
        inside = isinstance(content, dict) and isinstance(content.get("annotations"), list)
        hint = "; write only its list 'annotations', with a score in each" if inside else ""
        raise DataError(f"{path}: expected a list of results, got {_kind(content)}{hint}")
    _check_form(path, content, task)
    result = ResultFile(path, task, [], len(content))
    if content:
        _keep_usable(result, content, truth)
    return result


def _check_form(path: Path, content: list, task: str) -> None:
    """Raise for records that are not what a result of the task is."""
    wrong = []
    for index, record in enumerate(content):
        fault = _fault(record, task)
        if fault:
            wrong.append((index, fault))
    if wrong:
        told = "\n".join(f"  record {index}: {fault}" for index, fault in wrong[:_MOST_TOLD])
        more = f"\n  and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        raise DataError(f"{path}: {len(wrong)} of {len(content)} records are no {task} results:\n{told}{more}")


def _fault(record: Any, task: str) -> str | None:
    if type(record) is not dict:
        return f"expected an object, got {_kind(record)}"
    name = _FIELDS[task]
    missing = [key for key in ("image_id", "category_id", "score", name) if key not in record]
    if missing:
        return f"it has no {', '.join(missing)}"
    if type(record["score"]) not in (int, float):
        return f"score is {record['score']!r}, expected a number"
    for key in ("image_id", "category_id"):
        if type(record[key]) not in (int, str, float):
            return f"{key} is {record[key]!r}, expected a number or text"
    value = record[name]
    if task == "segm":
        if type(value) is not dict or not isinstance(value.get("counts"), (str, list)) or not _is_size(value):
            return "segmentation is no run lengths {'size': [height, width], 'counts': ...}"
    elif type(value) is not list or any(type(number) not in (int, float) for number in value):
        return f"{name} is {_short(value)}, expected a list of numbers"
    elif task == "bbox" and len(value) != 4:
        return f"bbox has {len(value)} numbers, expected 4: x, y, width, height"
    elif task == "keypoints" and (len(value) % 3 or not value):
        return f"keypoints has {len(value)} numbers, expected three for each: x, y, score"
    return None


def _is_size(mask: dict) -> bool:
    size = mask.get("size")
    return isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= 0 for n in size)


def _keep_usable(result: ResultFile, content: list[dict], truth: GroundTruth) -> None:
    """Fill `records`, `dropped` and `notes`."""
    row_of = truth.row_of
    number_of = {category_id: number for number, category_id in enumerate(truth.category_ids)}
    images = np.array([row_of.get(record["image_id"], -1) for record in content])
    classes = np.array([number_of.get(record["category_id"], -1) for record in content])
    scores = np.array([float(record["score"]) for record in content])
    good = np.ones(len(content), bool)

    def drop(bad: np.ndarray, why: str) -> None:
        bad = bad & good
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            good[bad] = False
            result.dropped[why] = int(bad.sum())
            result.notes.append(
                f"{result.path.name}: {result.dropped[why]} of {len(content)} records were left out: {why} "
                f"(first: record {first}, image {content[first]['image_id']!r})"
            )

    if (images < 0).any():
        drop(images < 0, ids_apart("image", dict.fromkeys(r["image_id"] for r in content), row_of))
    if (classes < 0).any():
        drop(classes < 0, ids_apart("category", dict.fromkeys(r["category_id"] for r in content), number_of))
    drop(~np.isfinite(scores), "the score is NaN or infinite")
    _TASK_CHECKS[result.task](content, images, truth, good, drop)
    if not good.any():
        told = "\n".join(f"  {note.partition(': ')[2]}" for note in result.notes)
        raise DataError(f"{result.path}: none of the {len(content)} records can be evaluated:\n{told}")

    area_of = _area_rule(content[0], result.task)
    for index in np.flatnonzero(good).tolist():
        record = content[index]
        result.records.append(
            {
                "id": len(result.records) + 1,
                "image_id": int(images[index]),
                "category_id": int(classes[index]),
                "score": record["score"],
                "iscrowd": 0,
                "area": area_of(record),
                _FIELDS[result.task]: record[_FIELDS[result.task]],
            }
        )
    equal = equal_scores(scores[good])
    if equal:
        result.notes.append(f"{result.path.name}: {equal}")


def _check_boxes(content: list[dict], images: np.ndarray, truth: GroundTruth, good: np.ndarray, drop: Callable) -> None:
    boxes = np.array([record["bbox"] for record in content], dtype=np.float64)
    drop(~np.isfinite(boxes).all(axis=1), "a coordinate of the box is NaN or infinite")
    sizes = np.array([size[::-1] if size and None not in size else (np.nan, np.nan) for size in truth.sizes])
    odd = boxes_look_like_xyxy(boxes[good], sizes[images[good]]) if good.any() else None
    drop((boxes[:, 2:] < 0).any(axis=1), "the box has a negative width or height")
    if odd:
        drop(np.zeros(len(content), bool), odd)
        drop.notes.append(odd)


_TASK_CHECKS: dict[str, Callable] = {}
