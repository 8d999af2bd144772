"""What each image adds to the numbers of segmentation, and the intervals and comparisons that follow from it.

IoU and PQ divide sums over images, class by class; `ImageSums` keeps the terms, also as a file beside the metrics, so
that runs can be compared later.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_eval.analysis.measured import Measured
from vertebra_eval.analysis.weighted_ap import mean_of_classes
from vertebra_eval.errors import DataError
from vertebra_eval.files import read_bytes, write_bytes
from vertebra_eval.panoptic.counts import ImageCounts
from vertebra_eval.panoptic.quality import PanopticClass

__all__ = ["SUMS_FILES", "ImageSums", "Ratio"]

SUMS_FILES = {"sem_seg": "sem_seg_image_sums.npz", "panoptic": "panoptic_image_sums.npz"}
"""Task -> name of the file in the folder of an evaluation."""
_COLUMNS = {
    "sem_seg": ("both", "true", "predicted"),
    "panoptic": ("iou", "matched", "false", "missed"),
}
_BOUNDARY = ("boundary_both", "boundary_true", "boundary_predicted")
_PARTS = (
    ("both", "true"),
    ("both", "predicted"),
    ("iou", "matched"),
    ("boundary_both", "boundary_true"),
    ("boundary_both", "boundary_predicted"),
)
"""Columns of which the first is at most the second."""
_MOST_BYTES = 4 << 30  # of a file's arrays, once unpacked


@dataclass
class Ratio:
    """A mean over classes of sums over images, divided.

    Args:
        above, below: (N, C) what each image adds to each class. C are all classes, also those that never occur.
        occurs: (N, C) bool, the images that make the class count.
        true: (N, C) how much of a class the ground truth has: what is known about the class rests on that.
    """

    above: np.ndarray
    below: np.ndarray
    occurs: np.ndarray
    true: np.ndarray

    def of_classes(self, weights: np.ndarray) -> np.ndarray:
        """(N, B) weights to (C, B) values; NaN where there is nothing to divide by."""
        weights = weights.T.astype(np.float64)
        above, below = weights @ self.above, weights @ self.below
        return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 1e-9).T

    def value(self) -> float:
        """The number itself, in which classes with nothing to divide by are 0."""
        return float(
            mean_of_classes(_divided(*(part.sum(0)[None] for part in (self.above, self.below, self.occurs))))[0]
        )

    def bias(self) -> float:
        """Of the mean.

        To first order in 1 / N, with sums A and B over images, E[A / B] - E[A] / E[B] is -cov(B, A - B A/B) / B^2
        (Cochran, "Sampling Techniques", 1977, section 6.8). Classes that are predicted, but have no objects, count as 0
        here and not in many images, where they have objects; the bias includes that.
        """
        true, below = self.true.sum(axis=0) > 0, self.below.sum(axis=0)
        known = true & (below > 0)
        if not known.any():
            return 0.0
        below, parts, above = below[known], self.below[:, known], self.above[:, known]
        value = above.sum(axis=0) / below
        rest = above - parts * value
        excess = -((parts - parts.mean(axis=0)) * rest).sum(axis=0) / below**2
        return self.value() - float(value.mean() - excess.mean())

    def with_images_of(self, other: Ratio, taken: np.ndarray) -> np.ndarray:
        """(C, B) values where the images in `taken`, (N, B) bool, are the other's."""
        chosen = taken.T.astype(np.float64)
        pairs = ((self.above, other.above), (self.below, other.below), (self.occurs, other.occurs))
        return _divided(*(own.sum(axis=0) + chosen @ (others.astype(np.float64) - own) for own, others in pairs))


def _divided(above: np.ndarray, below: np.ndarray, occurs: np.ndarray) -> np.ndarray:
    """(B, C) sums to (C, B) values: 0 with nothing to divide by, NaN where a class does not occur."""
    exists = occurs > 0.5
    values = np.where(exists, 0.0, np.nan)
    return np.divide(above, below, out=values, where=exists & (below > 1e-9)).T


@dataclass
class ImageSums(Measured):
    """The terms of one evaluation.

    Args:
        task: sem_seg or panoptic.
        images: N names. classes: K names. things: (K,) bool, False throughout for sem_seg.
        columns: name -> (N, K). For sem_seg pixels that are of a class in both maps, in the truth, in the prediction,
            and the same of boundaries where they were counted; for panoptic the sum of IoUs, and the numbers of true
            positives, false positives and misses.
    """

    task: str
    images: Sequence[str]
    classes: Sequence[str]
    things: np.ndarray
    columns: Mapping[str, np.ndarray]
    ratios: dict[str, Ratio] = field(init=False)

    def __post_init__(self) -> None:
        if self.task not in _COLUMNS:
            raise DataError(f"sums of an unknown task {self.task!r}; expected one of {', '.join(_COLUMNS)}")
        self._check_columns()
        self.num_images = len(self.images)
        self.ratios = _sem_seg(self.columns) if self.task == "sem_seg" else _panoptic(self.columns, self.things)
        self.num_classes = {name: ratio.occurs.shape[1] for name, ratio in self.ratios.items()}

    def _check_columns(self) -> None:
        shape = len(self.images), len(self.classes)
        if self.things.dtype != bool or self.things.shape != shape[1:]:
            raise DataError(f"things is {self.things.dtype} of shape {self.things.shape}; expected bool, {shape[1:]}")
        for name in (*_COLUMNS[self.task], *(set(_BOUNDARY) & self.columns.keys())):
            column = self.columns.get(name)
            if column is None or column.shape != shape or column.dtype.kind not in "iuf":
                what = "missing" if column is None else f"{column.dtype} of shape {column.shape}"
                raise DataError(f"column {name} is {what}; expected numbers, one for each image and class: {shape}")
            if not np.isfinite(column).all() or (column < 0).any():
                raise DataError(f"column {name} has values that are not finite numbers from 0 on")
        for part, whole in _PARTS:
            if {part, whole} <= self.columns.keys() and (self.columns[part] > self.columns[whole] * (1 + 1e-9)).any():
                raise DataError(f"column {part} exceeds column {whole}, which it is a part of")

    @classmethod
    def of_panoptic(
        cls, images: Sequence[str], classes: Sequence[PanopticClass], counts: Sequence[ImageCounts]
    ) -> ImageSums:
        """Of the segments of each image."""
        columns = {name: np.zeros((len(counts), len(classes))) for name in _COLUMNS["panoptic"]}
        for row, image in enumerate(counts):
            np.add.at(columns["iou"][row], image.matched, image.iou)
            for name, of in (("matched", image.matched), ("false", image.false), ("missed", image.missed)):
                columns[name][row] = np.bincount(of, minlength=len(classes))
        things = np.array([known.isthing for known in classes], bool)
        return cls("panoptic", list(images), [known.name for known in classes], things, columns)

    @classmethod
    def of_pixels(
        cls, images: Sequence[str], classes: Sequence[str], pixels: np.ndarray, boundary: np.ndarray | None = None
    ) -> ImageSums:
        """Of semantic maps; `pixels` and `boundary`, (N, 3, K): in both maps, in the truth, in the prediction."""
        columns = dict(zip(_COLUMNS["sem_seg"], pixels.transpose(1, 0, 2), strict=True))
        if boundary is not None:
            columns |= dict(zip(_BOUNDARY, boundary.transpose(1, 0, 2), strict=True))
        return cls("sem_seg", list(images), list(classes), np.zeros(len(classes), bool), columns)

    def write(self, path: str | os.PathLike) -> None:
        """As a .npz file, whole or not at all."""
        content = io.BytesIO()
        names = {"images": np.array(self.images, np.str_), "classes": np.array(self.classes, np.str_)}
        arrays: dict[str, Any] = {"task": np.array(self.task), "things": self.things, **names, **self.columns}
        np.savez_compressed(content, **arrays)
        write_bytes(path, content.getvalue())

    def write_to(self, folder: Path | None) -> dict[str, Path]:
        """Into the folder of an evaluation, under the task's name; what an evaluator says of its files."""
        if folder is None:
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / SUMS_FILES[self.task]
        self.write(path)
        return {path.stem: path}

    @classmethod
    def read(cls, path: str | os.PathLike) -> ImageSums:
        """What `write` wrote; nothing in the file is executed.

        Raises:
            DataError: it did not write this.
        """
        try:
            content = read_bytes(path)
            _check_sizes(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            names = (np.asarray(arrays.pop(name)) for name in ("images", "classes"))
            images, classes = ([str(name) for name in column.reshape(-1)] for column in names)
            return cls(str(arrays.pop("task")), images, classes, arrays.pop("things"), arrays)
        except OSError:
            raise
        except KeyError as err:
            fault = f"it has no {err}"
        except Exception as err:  # whatever zipfile, zlib and numpy find in a damaged file
            fault = str(err) or type(err).__name__
        raise DataError(
            f"{Path(path)}: not the image sums of an evaluation of segmentation ({fault}); evaluate again to write them"
        )

    def values(self) -> dict[str, float]:
        return {name: ratio.value() for name, ratio in self.ratios.items()}

    def of_classes(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: ratio.of_classes(weights) for name, ratio in self.ratios.items()}

    def images_of_classes(self) -> dict[str, np.ndarray]:
        return {name: _effective_number(ratio.true) for name, ratio in self.ratios.items()}

    def bias(self, rng: np.random.Generator) -> dict[str, float]:
        return {name: ratio.bias() for name, ratio in self.ratios.items()}

    def swapped(self, other: Measured, swap: np.ndarray) -> dict[str, np.ndarray]:
        assert isinstance(other, ImageSums)
        found = {}
        for name in self.ratios.keys() & other.ratios.keys():
            own, others = self.ratios[name], other.ratios[name]
            first, second = own.with_images_of(others, swap), others.with_images_of(own, swap)
            found[name] = mean_of_classes(second) - mean_of_classes(first)
        return {name: found[name] for name in self.ratios if name in found}

    def ground_truth(self) -> dict[str, Any]:
        columns = self.columns
        true = columns["true"] if self.task == "sem_seg" else columns["matched"] + columns["missed"]
        what = (
            "true pixels of each image and class" if self.task == "sem_seg" else "true segments of each image and class"
        )
        names = {"task": self.task, "images": list(self.images), "classes": list(self.classes)}
        return {**names, "which classes are things": self.things, what: true}


def _effective_number(parts: np.ndarray) -> np.ndarray:
    """(N, C) what each image adds, to (C,): of how many equal images that is worth; 0 where nothing is (Kish, "Survey
    Sampling", 1965, section 11.7)."""
    parts = parts.astype(np.float64)
    total, squares = parts.sum(axis=0), (parts**2).sum(axis=0)
    return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)


def _check_sizes(content: bytes) -> None:
    """Before anything is unpacked: arrays are as large as their place in the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
            raise DataError("it unpacks to more than 4 GiB")
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise DataError(f"{member.filename} does not have the size that its header says")


def _sem_seg(columns: Mapping[str, np.ndarray]) -> dict[str, Ratio]:
    both, true, predicted = (columns[name].astype(np.float64) for name in _COLUMNS["sem_seg"])
    occurs = true > 0
    found = {
        "mIoU": Ratio(both, true + predicted - both, occurs, true),
        "mDice": Ratio(2 * both, true + predicted, occurs, true),
        "mean_accuracy": Ratio(both, true, occurs, true),
    }
    hits, all_true = both.sum(axis=1, keepdims=True), true.sum(axis=1, keepdims=True)
    found["pixel_accuracy"] = Ratio(hits, all_true, all_true > 0, all_true)
    if all(name in columns for name in _BOUNDARY):
        common, one, other = (columns[name].astype(np.float64) for name in _BOUNDARY)
        found["mBoundaryIoU"] = Ratio(common, one + other - common, occurs, true)
    return found


def _panoptic(columns: Mapping[str, np.ndarray], things: np.ndarray) -> dict[str, Ratio]:
    iou, matched, false, missed = (columns[name].astype(np.float64) for name in _COLUMNS["panoptic"])
    weight = matched + 0.5 * (false + missed)
    true, occurs = matched + missed, weight > 0
    found = {}
    for suffix, rows in (("", np.ones(len(things), bool)), ("_things", things), ("_stuff", ~things)):
        for name, above, below in (("PQ", iou, weight), ("SQ", iou, matched), ("RQ", matched, weight)):
            found[f"{name}{suffix}"] = Ratio(*(column[:, rows] for column in (above, below, occurs, true)))
    return found
