"""Result files of any tool, as COCO has them: read and checked.

An error: no JSON or no list, a record without a field or with one of another type, an image that the ground truth does
not have, a mask of another size than its image, run lengths that do not fill it, and a file of which nothing can be
used. Dropped and counted: records of categories that the ground truth does not have, with a score that is
NaN, a box or keypoint that is not finite, a box of negative size. An empty list is a valid result: nothing was found.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from vertebra_eval.coco import DetectionColumns, GroundTruthColumns, read_detections
from vertebra_eval.coco.reasons import ids_apart
from vertebra_eval.errors import DataError
from vertebra_eval.files import read_json

__all__ = ["read_results"]


def read_results(path: str | Path, truth: GroundTruthColumns, task: str) -> DetectionColumns:
    """Columns of a result file; `notes` says what was dropped, and the likely cause.

    Args:
        task: bbox, segm or keypoints.

    Raises:
        DataError: as the head of this file says; names file and record.
    """
    path = Path(path)
    try:
        detections = read_detections(path, truth, task)
    except DataError as err:
        causes = _id_causes(path, truth)
        raise DataError("\n  ".join([str(err), *causes])) from err
    notes = list(detections.notes)
    if notes:  # something was dropped
        causes = _id_causes(path, truth)
        if not len(detections):
            raise DataError("\n  ".join([f"{path}: no record of it can be evaluated:", *notes, *causes]))
        notes += [f"{path}: {cause}" for cause in causes]
    detections.notes = notes
    return detections


def _id_causes(path: Path, truth: GroundTruthColumns) -> list[str]:
    """Why ids may not meet, as far as the file tells; for messages, so whatever the file is it raises nothing."""
    try:
        records = read_json(path, unique_keys=False)
        images: dict[Hashable, None] = dict.fromkeys(record["image_id"] for record in records)
        categories = dict.fromkeys(record["category_id"] for record in records)
    except (DataError, KeyError, TypeError):
        return []
    known_images = {*truth.image_ids, *truth.other_image_ids}
    known_categories = {*truth.category_ids, *truth.other_category_ids}
    causes = (ids_apart("image", images, known_images), ids_apart("category", categories, known_categories))
    return [cause for cause in causes if cause]
