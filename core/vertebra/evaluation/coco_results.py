"""COCO result files of detections: what pycocotools' `loadRes` and other tools read."""

from __future__ import annotations

import json
from pathlib import Path

from vertebra.evaluation.detections import DetectionTable
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.pycoco import task_records
from vertebra.evaluation.records import json_segmentation

__all__ = ["write_results"]


def write_results(folder: Path, truth: GroundTruth, table: DetectionTable, tasks: list[str]) -> dict[str, Path]:
    """One result file per task, with the dataset's image and category ids; numbers in full precision.

    The first task's is `coco_results.json`, another's `coco_results_<task>.json`. Each has only the fields of its task:
    loadRes would take areas from boxes otherwise. Ground truth that came from no file is written too.

    Returns:
        Name in the list of written files -> path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, task in enumerate(tasks):
        name = "coco_results" if number == 0 else f"coco_results_{task}"
        files[name] = folder / f"{name}.json"
        if _lacks_field(table, task):
            records = []
        else:
            records = [_dataset_record(record, truth, task) for record in task_records(table, task)]
        files[name].write_text(json.dumps(records), encoding="utf-8")
    if truth.annotated and truth.file is None:
        files["coco_ground_truth"] = folder / "coco_ground_truth.json"
        truth.write(files["coco_ground_truth"])
    return files


def _lacks_field(table: DetectionTable, task: str) -> bool:
    """Without any detection there is no column of masks or keypoints either."""
    return (task == "segm" and table.masks is None) or (task == "keypoints" and table.keypoints is None)


def _dataset_record(record: dict, truth: GroundTruth, task: str) -> dict:
    result = {
        "image_id": truth.image_ids[record["image_id"]],
        "category_id": truth.category_ids[record["category_id"]],
        "score": record["score"],
    }
    if task == "bbox":
        return result | {"bbox": record["bbox"]}
    if task == "segm":
        return result | {"segmentation": json_segmentation(record["segmentation"])}
    return result | {"keypoints": record["keypoints"]}
