"""Panoptic results in COCO's files: a JSON that lists segments, and a folder of PNG files with their ids.

Format: https://cocodataset.org/#format-results, section 4.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra_eval.coco.reasons import ids_apart
from vertebra_eval.errors import DataError
from vertebra_eval.files import Problems
from vertebra_eval.panoptic.counts import ImageCounts, Segments, count_image
from vertebra_eval.panoptic.data import PanopticData, png_folder, read_panoptic
from vertebra_eval.panoptic.quality import PanopticClass, PanopticQuality, panoptic_quality
from vertebra_eval.panoptic.runs import read_id_runs

__all__ = ["panoptic_evaluate"]

_MOST_THREADS = 8


def panoptic_evaluate(
    gt_json: str | os.PathLike,
    gt_folder: str | os.PathLike | None = None,
    pred_json: str | os.PathLike | None = None,
    pred_folder: str | os.PathLike | None = None,
    *,
    threads: int | None = None,
) -> PanopticQuality:
    """Compare predictions with ground truth, both in COCO's panoptic files; the numbers are panopticapi's.

    Args:
        gt_json, pred_json: lists of `annotations`; the ground truth's has `categories` too.
        gt_folder, pred_folder: where the PNG files are. None: the JSON's path without `.json`.
        threads: that read and count images at the same time. None: as many as there are processors, at most 8.
    Raises:
        DataError: names file and record; all faults of the records at once, the first 20 told.
    """
    if pred_json is None:
        raise TypeError("panoptic_evaluate needs pred_json, the predictions' JSON file")
    gt_json, pred_json = Path(gt_json), Path(pred_json)
    truth = read_panoptic(gt_json, _folder(gt_folder, gt_json))
    rows = {known.id: row for row, known in enumerate(truth.categories)}
    predicted = read_panoptic(pred_json, _folder(pred_folder, pred_json), categories=rows)
    true_images, pred_images = _images(truth, rows), _images(predicted, rows)
    missing = Problems(pred_json)
    for key in true_images.keys() - pred_images.keys():
        missing.add(f"image {key!r}", "has no prediction; write one with an empty segments_info where nothing is found")
    apart = ids_apart("image", pred_images.keys(), true_images.keys())
    if missing.count and apart:
        missing.add("image ids", apart)
    missing.raise_if_any()

    pairs = [(true_images[key], pred_images[key]) for key in true_images]
    threads = threads or min(_processors(), _MOST_THREADS)
    if threads == 1:
        outcomes = list(map(_count, pairs))
    else:
        with ThreadPoolExecutor(threads) as pool:
            outcomes = list(pool.map(_count, pairs))
    faults = Problems(pred_json)
    counts: list[ImageCounts] = []
    for outcome in outcomes:
        if isinstance(outcome, DataError):
            faults.add("images and segments do not fit", str(outcome))
        else:
            counts.append(outcome)
    faults.raise_if_any()
    classes = [PanopticClass(*known) for known in truth.categories]
    quality = panoptic_quality(classes, counts)
    quality.images = [str(key) for key in true_images]
    extra = len(pred_images.keys() - true_images.keys())
    if extra:
        quality.notes.append(f"{extra} predicted images are not in the ground truth and were dropped")
    return quality


@dataclass
class _ImageRecord:
    where: str
    path: Path
    segments: Segments


def _count(pair: tuple[_ImageRecord, _ImageRecord]) -> ImageCounts | DataError:
    truth, predicted = pair
    try:
        true_ids, pred_ids = read_id_runs(truth.path), read_id_runs(predicted.path)
        return count_image(true_ids, truth.segments, pred_ids, predicted.segments, predicted.where)
    except DataError as err:
        return err


def _images(data: PanopticData, rows: dict[int, int]) -> dict[Any, _ImageRecord]:
    """The records of one file by image id; the PNG files are looked for, not yet read."""
    for row, key in enumerate(data.ids):
        if isinstance(data.file_names[row], str) and not data.path(row).is_file():
            data.findings.add("file", "error", [row], f"no such panoptic PNG: {data.path(row)} (image {key!r})")
    data.refuse()
    images = {}
    for row, key in enumerate(data.ids):
        segments = Segments.of(data.segments[row], rows, f"image {key!r}")
        images[key] = _ImageRecord(f"image {key!r} ({data.file_names[row]})", data.path(row), segments)
    return images


def _folder(given: str | os.PathLike | None, file: Path) -> Path:
    folder = png_folder(file) if given is None else Path(given)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the panoptic PNG files of {file.name} are looked for there")
    return folder


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
