"""Result files of any tool, as COCO has them: read, checked, and with a word on what looks wrong.

An error: no JSON or no list, a record without a field or with one of another type, an image the ground truth lacks, a
mask of another size than its image, run lengths that do not fill it, and a file of which nothing can be used. Left out
and counted: records of categories the ground truth lacks, with a number that is NaN or infinite, with a box of
negative size. An empty list is a valid result: nothing was found.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.analysis.reasons import boxes_look_like_xyxy, equal_scores, ids_apart
from vertebra.evaluation.cocoeval import DetectionColumns, GroundTruthColumns, read_detections
from vertebra.evaluation.cocoeval.records import load_json

__all__ = ["read_results", "run_length_area"]


def read_results(path: str | Path, truth: GroundTruthColumns, task: str) -> DetectionColumns:
    """Columns of a result file; `notes` says what was left out and what looks odd.

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
    if notes:  # something was left out
        causes = _id_causes(path, truth)
        if not len(detections):
            raise DataError("\n  ".join([f"{path}: no record of it can be evaluated:", *notes, *causes]))
        notes += [f"{path}: {cause}" for cause in causes]
    if task == "segm":
        _check_run_lengths(path, truth, detections)
    odd = [equal_scores(detections.scores)]
    if task == "bbox" and truth.image_sizes is not None:
        sizes = np.where(truth.image_sizes > 0, truth.image_sizes, np.nan)[:, ::-1]
        odd.append(boxes_look_like_xyxy(detections.boxes, sizes[detections.image]))
    detections.notes = notes + [f"{path}: {sentence}" for sentence in odd if sentence]
    return detections


def run_length_area(mask: dict) -> int:
    """Pixels that the run lengths of a mask cover, set or not: height x width if they are whole.

    Compressed counts are groups of 5 bits, lowest first, each a character from code 48 on, with 32 added to all but
    the last of a number and the sign in its highest bit; from the fourth on, numbers are differences to the one two before
    (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleToString).

    Raises:
        ValueError: text that is no such code, or a negative run.
    """
    counts = mask["counts"]
    if isinstance(counts, list):
        runs = np.array(counts, dtype=np.int64)
    else:
        codes = np.frombuffer(counts if isinstance(counts, bytes) else counts.encode("latin-1", "replace"), np.uint8)
        codes = codes.astype(np.int64) - 48
        if len(codes) and not (codes.min() >= 0 and codes.max() < 64 and codes[-1] < 32):
            raise ValueError("the counts are no compressed run lengths")
        runs = _decoded(codes)
    if len(runs) and runs.min() < 0:
        raise ValueError("a run has a negative length")
    return int(runs.sum())


def _decoded(codes: np.ndarray) -> np.ndarray:
    """(n,) groups of 5 bits with their continuation bit to run lengths."""
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if len(place) and place.max() > 11:
        raise ValueError("a run length has more than 60 bits")
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts) if len(ends) else np.zeros(0, np.int64)
    negative = (codes[ends] & 16) > 0
    numbers = numbers - np.where(negative, 1 << (5 * (ends - starts + 1)), 0)
    for first in (1, 2):  # the second and third number are not differences, those after them are to two before
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _check_run_lengths(path: Path, truth: GroundTruthColumns, detections: DetectionColumns) -> None:
    for row, mask in enumerate(detections.masks.segmentations):
        if not isinstance(mask, dict):
            continue
        where = f"{path}: image {truth.image_ids[detections.image[row]]!r}: the mask of row {row}"
        try:
            covered = run_length_area(mask)
        except (ValueError, OverflowError, TypeError) as err:
            raise DataError(f"{where} is broken: {err}") from err
        height, width = mask["size"]
        if covered != height * width:
            raise DataError(
                f"{where} is broken: its runs cover {covered} pixels, its size {height} x {width} has others"
            )


def _id_causes(path: Path, truth: GroundTruthColumns) -> list[str]:
    """Why ids may not meet, as far as the file tells; for messages, so whatever the file is it raises nothing."""
    try:
        records = load_json(path)
        images: dict[Hashable, None] = dict.fromkeys(record["image_id"] for record in records)
        categories = dict.fromkeys(record["category_id"] for record in records)
    except (DataError, KeyError, TypeError):
        return []
    known_images = {*truth.image_ids, *truth.other_image_ids}
    known_categories = {*truth.category_ids, *truth.other_category_ids}
    causes = (ids_apart("image", images, known_images), ids_apart("category", categories, known_categories))
    return [cause for cause in causes if cause]
