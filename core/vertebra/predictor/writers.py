"""What becomes of predictions: each writer takes one after the other and keeps nothing that grows with their number."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.errors import DataError
from vertebra.evaluation.coco_json import json_text
from vertebra.predictor.prediction_records import ClassLabels, outputs_of, records_of
from vertebra.predictor.predictor import Prediction
from vertebra_eval.files import WholeFile, free_path, open_whole, write_text
from vertebra_eval.printable import printable

__all__ = ["CocoWriter", "CsvWriter", "LabelWriter", "Writer", "YoloWriter", "check_free", "growing_file"]


class Writer:
    """The contract: `add` for each prediction, `close` at the end, also where something went wrong before."""

    def add(self, prediction: Prediction) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Finishes what was begun."""

    @property
    def written(self) -> list[Path]:
        """The files or folders that hold results."""
        raise NotImplementedError


class CocoWriter(Writer):
    """`predictions.json`: a list of detections in COCO's result format, with names beside the numbers.

    image_id counts the images in their order, from 1; category_id is that of the dataset which the model was trained
    on, where the checkpoint or the recipe's dataset tells it, otherwise the model's class from 0; bbox is x, y, width,
    height in pixels. The file is written as it grows, under another name until it is complete.
    """

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.path = folder / "predictions.json"
        check_free(self.path)
        self._labels = ClassLabels.of(metadata)
        self._growing = growing_file(self.path)
        self._images = 0
        self._any = False
        self._growing.file.write("[")

    def add(self, prediction: Prediction) -> None:
        self._images += 1
        for record in records_of(prediction, self._labels):
            self._growing.file.write(",\n " if self._any else "\n ")
            self._growing.file.write(json_text({"image_id": self._images, **record}))
            self._any = True

    def close(self) -> None:
        if not self._growing.file.closed:
            self._growing.file.write("\n]\n" if self._any else "]\n")
            self._growing.finish()

    @property
    def written(self) -> list[Path]:
        return [self.path]


class CsvWriter(Writer):
    """`predictions.csv`: a line for each detection, its box as corners in pixels; category_id as in `CocoWriter`.

    Spreadsheets take a cell that begins with =, +, - or @ for a formula: names that do get a `'` before it.
    """

    COLUMNS = ("file_name", "frame", "seconds", "category", "category_id", "score", "x0", "y0", "x1", "y1")

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.path = folder / "predictions.csv"
        check_free(self.path)
        self._labels = ClassLabels.of(metadata)
        self._growing = growing_file(self.path)
        self._table = csv.writer(self._growing.file, lineterminator="\n")
        self._table.writerow(self.COLUMNS)

    def add(self, prediction: Prediction) -> None:
        for record in records_of(prediction, self._labels):
            x, y, width, height = record["bbox"]
            corners = (x, y, round(x + width, 3), round(y + height, 3))
            self._table.writerow([*(_cell(record.get(column, "")) for column in self.COLUMNS[:6]), *corners])

    def close(self) -> None:
        self._growing.finish()

    @property
    def written(self) -> list[Path]:
        return [self.path]


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


class YoloWriter(Writer):
    """`labels/<image>.txt`: a line for each detection: class, center x, center y, width, height, score.

    Classes count from 0; places and sizes are parts of the image's width and height. An image in which nothing was
    found gets an empty file.
    """

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.folder = folder / "labels"
        check_free(self.folder)
        self.folder.mkdir(parents=True)

    def add(self, prediction: Prediction) -> None:
        height, width = prediction.frame.image.shape[:2]
        lines = []
        for _, found in outputs_of(prediction, "instances"):
            boxes = found.pred_boxes.tensor.float() / found.pred_boxes.tensor.new_tensor([width, height, width, height])
            centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            columns = zip(
                found.pred_classes.tolist(), centers.tolist(), sizes.tolist(), found.scores.tolist(), strict=True
            )
            lines += [
                " ".join([str(label), *(f"{value:.6f}" for value in (*center, *size)), f"{score:.5f}"])
                for label, center, size, score in columns
            ]
        path = free_path(self.folder, prediction.frame.stem, ".txt")
        write_text(path, "".join(f"{line}\n" for line in lines))

    @property
    def written(self) -> list[Path]:
        return [self.folder]


class LabelWriter(Writer):
    """`label_maps/<image>.png`: the class of each pixel of semantic predictions, as gray values.

    16 bits where there are more than 256 classes.
    """

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.folder = folder / "label_maps"
        check_free(self.folder)
        self.folder.mkdir(parents=True)

    def add(self, prediction: Prediction) -> None:
        for suffix, scores in outputs_of(prediction, "sem_seg"):
            labels = (scores.argmax(dim=0) if scores.dim() == 3 else scores).numpy()
            kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
            path = free_path(self.folder, prediction.frame.stem + suffix, ".png")
            with open_whole(path) as file:
                Image.fromarray(labels.astype(kind)).save(file, format="PNG")

    @property
    def written(self) -> list[Path]:
        return [self.folder]


def growing_file(path: Path) -> WholeFile:
    """A text file in a folder that may be missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return WholeFile(path, text=True)


def check_free(path: Path) -> None:
    """Raises DataError where an earlier prediction lies."""
    if path.exists():
        raise DataError(f"{path}: this folder already holds predictions; choose another with --output, or move them")
