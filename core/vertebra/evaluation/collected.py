"""Predictions collected image by image, over all processes, and what is odd about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.detections import Detections, ImageKey, columns_of_output
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco.columns import DetectionColumns, corners
from vertebra_eval.coco.reasons import boxes_look_like_xywh, equal_scores, infinite_scores

__all__ = ["Collected", "check_classes", "collect", "collected", "notes_on_predictions"]


@dataclass
class Collected:
    """All detections of a dataset beside its ground truth."""

    truth: GroundTruth
    table: DetectionColumns
    notes: list[str]


def collect(detections: Detections, inputs: list[dict], outputs: list[dict]) -> None:
    """Take a batch of a model's inputs and outputs."""
    for record, output in zip(inputs, outputs, strict=True):
        detections.add(ImageKey.of(record), *columns_of_output(record, output))


def collected(dataset: Any, shards: list[Detections]) -> Collected:
    """The detections of all processes in one table, checked against the dataset."""
    truth, detections = GroundTruth.of_dataset(dataset), Detections.merged(shards)
    table = detections.columns(truth.rows(detections.images))
    check_classes(table, truth)
    return Collected(truth, table, [*truth.notes, *notes_on_predictions(detections, table, truth)])


def check_classes(table: DetectionColumns, truth: GroundTruth) -> None:
    """Every detection is of a class of the dataset, or a DataError."""
    count = len(truth.class_names)
    if len(table) and not (table.category.min() >= 0 and table.category.max() < count):
        wrong = table.category[(table.category < 0) | (table.category >= count)]
        raise DataError(
            f"the model predicts class {wrong[0]}, but the dataset has {count} classes, numbered from 0.\n"
            "  The weights are of a model for other classes, or the dataset has no metadata.thing_classes"
        )


def notes_on_predictions(detections: Detections, table: DetectionColumns, truth: GroundTruth) -> list[str]:
    """What a reader should know about the predictions."""
    notes = []
    dropped, images = detections.dropped
    if dropped:
        notes.append(
            f"{dropped} of {dropped + len(table)} predictions were dropped: a score is NaN, or a coordinate is not "
            f"finite ({len(images)} images, first {images[0].image_id!r})"
        )
    unseen = len(truth.keys) - len(detections.images)
    if unseen and truth.keys:
        notes.append(
            f"{unseen} of the dataset's {len(truth.keys)} images were not predicted; their objects count as missed"
        )
    if not len(table) and len(truth.objects):
        notes.append("the model returned no detections at all, so every AP and AR that has ground truth is 0")
    sizes = np.array([(size[1], size[0]) if size else (np.nan, np.nan) for size in truth.sizes]).reshape(-1, 2)
    odd = (
        equal_scores(table.scores),
        infinite_scores(table.scores),
        boxes_look_like_xywh(corners(table.boxes), sizes[table.image]),
    )
    return notes + [sentence for sentence in odd if sentence]
