"""Folders of label images, one label per pixel, to semantic segmentation's numbers: `semantic_evaluate`."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra_eval.errors import DataError
from vertebra_eval.files import Problems, read_bytes
from vertebra_eval.image_types import MAX_PIXELS
from vertebra_eval.png_chunks import png_fault
from vertebra_eval.semantic import SemanticScores, pixels_of_classes, semantic_scores

__all__ = ["label_counts", "read_label_map", "semantic_evaluate"]

_MODES = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")
_MOST_CLASSES = 10_000


def semantic_evaluate(
    gt_folder: str | os.PathLike,
    pred_folder: str | os.PathLike,
    classes: Sequence[str] | int,
    *,
    ignore_label: int = 255,
) -> SemanticScores:
    """Compare label images with ground truth; files with the same stem belong together.

    Args:
        gt_folder, pred_folder: PNG files, one label per pixel (a palette's indices count).
        classes: names of the labels from 0 on, or their number.
        ignore_label: pixels of this ground-truth label do not count.

    Raises:
        DataError: names each image that is missing, damaged, of another size, or with labels beyond the classes; no
            class, or more than 10,000, whose table of pairs would need gigabytes.
    """
    count = classes if isinstance(classes, int) else len(classes)
    if not 0 < count <= _MOST_CLASSES:
        raise DataError(f"there are {count} classes; expected their names, or a number from 1 to {_MOST_CLASSES:,}")
    names = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
    times = Counter(names)
    labels = [name if times[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]
    truth, predicted = _files(Path(gt_folder)), _files(Path(pred_folder))
    problems = Problems(Path(pred_folder))
    for stem in truth.keys() - predicted.keys():
        problems.add(f"{stem}.png", "has no prediction")
    problems.raise_if_any()
    counts = np.zeros((len(labels), len(labels) + 1), np.int64)
    pixels = []
    for stem, path in truth.items():
        try:
            own = label_counts(path, predicted[stem], len(labels), ignore_label)
            counts += own
            pixels.append(pixels_of_classes(own))
        except DataError as err:
            problems.add(stem, str(err))
    problems.raise_if_any()
    scores = semantic_scores(counts, None, labels)
    scores.images, scores.pixels = list(truth), np.stack(pixels)
    extra = len(predicted.keys() - truth.keys())
    if extra:
        scores.notes.append(f"{extra} predicted images are not in the ground truth and were dropped")
    return scores


def label_counts(truth: Path, predicted: Path, num_classes: int, ignore_label: int) -> np.ndarray:
    """(K, K + 1) int64 pixels by true and predicted label of one image; the last column is for labels of no class."""
    true, found = read_label_map(truth), read_label_map(predicted)
    if true.shape != found.shape:
        (h, w), (height, width) = found.shape, true.shape
        raise DataError(f"{predicted}: {w}x{h} pixels (width x height), the ground truth {width}x{height}")
    use = true != ignore_label
    beyond = np.unique(true[use & (true >= num_classes)])
    if len(beyond):
        raise DataError(
            f"{truth}: label {beyond[0]} is not one of the {num_classes} classes, numbered from 0; the ignored label "
            f"is {ignore_label}"
        )
    keys = true[use] * (num_classes + 1) + np.minimum(found[use], num_classes)
    return np.bincount(keys, minlength=num_classes * (num_classes + 1)).reshape(num_classes, num_classes + 1)


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """(H, W) int64 labels of a PNG with one channel.

    Raises:
        DataError: not there, damaged, too large, or of more than one channel.
    """
    try:
        encoded = read_bytes(path)
        if fault := png_fault(encoded):
            raise DataError(f"{path}: damaged label image: {fault}")
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width}x{height} pixels are more than the {MAX_PIXELS} that are read")
            if image.mode not in _MODES:
                raise DataError(f"{path}: labels need one channel, this image has mode {image.mode}")
            return np.array(image).astype(np.int64)
    except DataError:
        raise
    except Exception as err:
        raise DataError(f"{path}: damaged label image ({str(err).splitlines()[0]})") from err


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; label images (PNG) are looked for there")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
    if not found:
        raise DataError(f"{folder}: there are no PNG files in it")
    return found
