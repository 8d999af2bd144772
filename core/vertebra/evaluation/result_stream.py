"""COCO result files that grow while a model predicts, so that what is found is on disk before the last image is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.evaluation.coco_json import json_text
from vertebra.evaluation.coco_results import coco_records, result_file
from vertebra.evaluation.collected import check_classes
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco import DetectionColumns

__all__ = ["ResultStream"]

_AT_A_TIME = 1 << 20  # characters kept back before they are written


class ResultStream:
    """One file per task, `coco_results.json.part` and so on, complete but for its last bracket; `finish` renames them.

    A run that breaks leaves the parts: all records up to a few images before the break, one to a line.

    Args:
        folder: where; made if it is missing. Parts that lie there from a broken run are replaced.
        dataset: with `.dicts` and `.metadata`, for the ids of images and categories.
        tasks: any of bbox, segm, keypoints; the first one's file has the plain name.
        rank: number of this process; each writes files of its own.

    Attributes:
        num_images: taken so far.
    """

    def __init__(self, folder: Path, dataset: Any, tasks: Sequence[str], rank: int = 0) -> None:
        self.tasks = list(tasks)
        self.truth = GroundTruth.without_annotations(dataset)
        self._rows = self.truth.row_of
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {task: result_file(folder, number, task) for number, task in enumerate(self.tasks)}
        suffix = ".part" if rank == 0 else f".{rank}.part"
        self._parts = {task: path.with_name(path.name + suffix) for task, path in self.paths.items()}
        self._waiting: dict[str, list[str]] = {task: [] for task in self.tasks}
        self._length = 0
        self.num_images = 0
        self._empty = dict.fromkeys(self.tasks, True)
        for part in self._parts.values():
            part.write_text("[", encoding="utf-8")

    def add(self, key: ImageKey, found: DetectionColumns) -> None:
        """The detections of one image, which must not come twice."""
        self.num_images += 1
        row = self._rows.get(key.image_id if self.truth.ids_are_distinct else key)
        if row is None:
            return  # `evaluate` says what is wrong
        table = replace(found, image=np.full(len(found), row, dtype=np.int64))
        check_classes(table, self.truth)
        for task, lines in self._waiting.items():
            for records in coco_records(table, self.truth, task):
                for record in records:
                    lines.append(("\n" if self._empty[task] else ",\n") + json_text(record))
                    self._empty[task] = False
                    self._length += len(lines[-1])
        if self._length > _AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """What has been kept back goes to the files."""
        for task, lines in self._waiting.items():
            with self._parts[task].open("a", encoding="utf-8") as file:
                file.writelines(lines)
            lines.clear()
        self._length = 0

    def fits(self, truth: GroundTruth, tasks: Sequence[str]) -> bool:
        """Whether the files are those of these tasks and of this ground truth's ids."""
        return list(tasks) == self.tasks and (truth.image_ids, truth.category_ids) == (
            self.truth.image_ids,
            self.truth.category_ids,
        )

    def finish(self) -> None:
        """The last bracket, and the files get their names."""
        self.flush()
        for task, part in self._parts.items():
            with part.open("a", encoding="utf-8") as file:
                file.write("]" if self._empty[task] else "\n]")
            part.replace(self.paths[task])

    def discard(self) -> None:
        """The parts go: what they hold is written from all processes' detections."""
        for part in self._parts.values():
            part.unlink(missing_ok=True)
