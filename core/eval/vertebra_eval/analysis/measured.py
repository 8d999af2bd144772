"""What results are worth when every image counts a whole number of times: what intervals and comparisons rest on.

A bootstrap resample draws images with replacement, so it is a weight per image. Numbers are means over classes.
Letters: N images, C classes that a number is the mean of, B weightings, T thresholds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from vertebra_eval.analysis.small_sample_bias import small_sample_bias
from vertebra_eval.analysis.weighted_ap import (
    Judged,
    class_average_precision,
    mean_of_classes,
    pooled,
    rank_classes,
)
from vertebra_eval.coco.matches import Matches

__all__ = ["Measured", "MeasuredAP"]

_AP_NAMES: Mapping[str, float | None] = {"AP": None, "AP50": 0.5, "AP75": 0.75}
"""Name -> IoU threshold, None the mean over all."""


class Measured(ABC):
    """The results of one run on N images.

    Attributes:
        num_images: N. num_classes: name of a number -> how many classes it would be the mean of, if all occurred.
    """

    num_images: int
    num_classes: dict[str, int]

    @abstractmethod
    def of_classes(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """(N, B) weights to (C, B) values of each number; NaN where a class does not occur."""

    @abstractmethod
    def images_of_classes(self) -> dict[str, np.ndarray]:
        """(C,) float64, number of images that each class of each metric rests on; 0 where it has no objects."""

    @abstractmethod
    def bias(self, rng: np.random.Generator) -> dict[str, float]:
        """Expected value of each metric on this many images minus its value on infinitely many."""

    @abstractmethod
    def swapped(self, other: Measured, swap: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) differences other - self of each number, once both have exchanged the images of `swap`, (N, B) bool."""

    @abstractmethod
    def ground_truth(self) -> dict[str, Any]:
        """Arrays and names that two runs need to have in common, by what they are called in messages."""

    def values(self) -> dict[str, float]:
        """The numbers themselves."""
        ones = np.ones((self.num_images, 1), np.int32)
        return {name: float(mean_of_classes(values)[0]) for name, values in self.of_classes(ones).items()}


class MeasuredAP(Measured):
    """AP, AP50 and AP75 of boxes, masks or keypoints of all sizes, as far as their thresholds were evaluated."""

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        self.num_images = matches.num_images
        self.judged = Judged.of(matches)
        self.ranked = rank_classes(self.judged)
        self.rows: dict[str, np.ndarray] = {}
        for name, iou in _AP_NAMES.items():
            rows = np.arange(len(matches.iou_thresholds))
            rows = rows if iou is None else np.flatnonzero(np.isclose(matches.iou_thresholds, iou))
            if len(rows):
                self.rows[name] = rows
        self.num_classes = dict.fromkeys(self.rows, 1 if matches.is_pooled else matches.num_classes)

    def of_classes(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        return self._named([class_average_precision(part, weights) for part in self.ranked], weights.shape[1])

    def images_of_classes(self) -> dict[str, np.ndarray]:
        images = np.array([len(np.unique(part.truth_image)) for part in self.ranked], np.float64)
        return dict.fromkeys(self.rows, images)

    def bias(self, rng: np.random.Generator) -> dict[str, float]:
        of_classes = small_sample_bias(self.ranked, self.num_images, rng)
        return {name: float(of_classes[:, rows].mean()) if self.ranked else 0.0 for name, rows in self.rows.items()}

    def swapped(self, other: Measured, swap: np.ndarray) -> dict[str, np.ndarray]:
        assert isinstance(other, MeasuredAP)
        both = pooled(self.judged, other.judged, self.num_images)
        own = np.ascontiguousarray(swap, np.int32)
        count = np.ones_like(own)
        sides = []
        for taken in (np.concatenate([1 - own, own]), np.concatenate([own, 1 - own])):  # (2N, B)
            sides.append(self._named([class_average_precision(part, taken, count) for part in both], swap.shape[1]))
        first, second = sides
        return {name: mean_of_classes(second[name]) - mean_of_classes(first[name]) for name in first}

    def ground_truth(self) -> dict[str, Any]:
        objects = self.matches.objects
        columns = {f"column {name}": getattr(objects, name) for name in ("image", "category", "boxes", "areas")}
        masks = None if objects.masks is None else objects.masks.areas()
        return {
            "image ids": list(objects.image_ids),
            **columns,
            "column keypoints": objects.keypoints,
            "areas of masks": masks,
            "whether categories are pooled": self.matches.is_pooled,
            "which objects count": self.matches.object_ignored,
            "IoU thresholds": self.matches.iou_thresholds,
            "number of images": self.num_images,
            "classes": self.matches.class_names,
        }

    def _named(self, of_classes: list[np.ndarray], count: int) -> dict[str, np.ndarray]:
        values = np.array(of_classes).reshape(len(of_classes), len(self.matches.iou_thresholds), count)
        return {name: values[:, rows].mean(axis=1) for name, rows in self.rows.items()}
