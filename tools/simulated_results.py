"""Simulated detectors and segmenters whose true worth is known, for `simulate_intervals.py`.

Objects come in images that are easy or hard and show a few classes; classes differ in frequency and difficulty; scores
and IoU go together; there are duplicates, confusions, objects that nobody labeled, and many detections of nothing.
Whatever a detector does is drawn anew for each run, but for what its images and its weights have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis import ImageSums
from vertebra_eval.coco import CocoParams, DetectionColumns, GroundTruthColumns, evaluate_columns
from vertebra_eval.coco.matches import Matches

__all__ = ["SegmentationWorld", "Weights", "World"]

_WIDTH, _HEIGHT = 640, 480
_PARAMS = CocoParams.for_task("bbox", area_ranges={"all": (0.0, 1e10)}, max_dets=(100,))


@dataclass
class Weights:
    """What one training made of a detector: how much better it is at all, and at each class (K,)."""

    skill: float
    of_class: np.ndarray


@dataclass
class Scene:
    """N images and what is in them: columns of objects, how easy each image is, and how easy each object."""

    truth: GroundTruthColumns
    ease: np.ndarray


class World:
    """Images and detectors of K classes.

    Args:
        per_image: objects, on average. skill: of the detectors; 0 makes an AP of about 0.37.
        rare_worse: how much harder a class is that is e times as rare.
    """

    def __init__(
        self, classes: int, per_image: float = 7.3, *, skill: float = 0.0, rare_worse: float = 0.0, seed: int = 0
    ) -> None:
        rng = np.random.default_rng([seed, classes])
        self.classes, self.per_image, self.skill = classes, per_image, skill
        log_frequency = rng.normal(0, 1, classes)
        self.frequency = np.exp(log_frequency) / np.exp(log_frequency).sum()
        self.found = 1.6 + 0.8 * rng.normal(size=classes) + rare_worse * log_frequency
        self.score = 0.6 + 0.5 * rng.normal(size=classes)
        self.noise = 0.07 * np.exp(0.3 * rng.normal(size=classes))

    def training(self, rng: np.random.Generator, skill: float = 0.0, spread: float = 0.0) -> Weights:
        """A detector that is better by `skill`, give or take what its seed does."""
        own = rng.normal(0, spread / 3), rng.normal(0, spread, self.classes)
        return Weights(self.skill + skill + own[0], own[1])

    def scene(self, rng: np.random.Generator, images: int) -> Scene:
        easy = rng.normal(size=images)
        kinds = 1 + rng.poisson(1.3, images)
        count = 1 + rng.negative_binomial(1.5, 1.5 / (0.5 + self.per_image), images)
        image = np.repeat(np.arange(images), count)
        shown = rng.choice(self.classes, kinds.sum(), p=self.frequency)
        category = shown[(np.cumsum(kinds) - kinds)[image] + (rng.random(len(image)) * kinds[image]).astype(int)]
        boxes = _boxes(rng, len(image))
        area = boxes[:, 2] * boxes[:, 3]
        truth = GroundTruthColumns(
            image=image,
            category=category,
            boxes=boxes,
            areas=area,
            crowd=np.zeros(len(image), bool),
            ignored=np.zeros(len(image), bool),
            annotation_ids=np.arange(1, len(image) + 1),
            image_ids=range(images),
            category_ids=range(self.classes),
            category_names=[f"class {number}" for number in range(self.classes)],
        )
        return Scene(truth, 0.6 * easy[image] + 0.375 * np.log(area / 4000) + rng.normal(0, 0.4, len(image)))

    def matches(self, rng: np.random.Generator, scene: Scene, weights: Weights | None = None) -> Matches:
        """One detector's detections of the scene, matched."""
        weights = weights or self.training(rng)
        truth, category = scene.truth, scene.truth.category
        ease = scene.ease + weights.skill + weights.of_class[category] + rng.normal(0, 0.45, len(category))
        parts: list[tuple[np.ndarray, ...]] = []

        def near(rows: np.ndarray, label: np.ndarray, logit: np.ndarray, noise: np.ndarray) -> None:
            size = truth.boxes[rows][:, 2:]
            moved = truth.boxes[rows] + rng.normal(size=(len(rows), 4)) * noise[:, None] * np.tile(size, 2)
            moved[:, 2:] = np.maximum(moved[:, 2:], 2)
            parts.append((truth.image[rows], label, moved, logit))

        def anywhere(each: float, mean: float) -> None:
            count = rng.poisson(each * self.per_image * truth.num_images)
            label = rng.choice(self.classes, count, p=self.frequency)
            image = rng.integers(0, truth.num_images, count)
            parts.append((image, label, _boxes(rng, count), mean + 1.2 * rng.normal(size=count)))

        hit = np.flatnonzero(rng.random(len(category)) < _sigmoid(self.found[category] + ease))
        own, fit, size = category[hit], rng.normal(size=len(hit)), len(hit)
        logit = self.score[own] + ease[hit] + 0.5 * fit + 0.7 * rng.normal(size=size)
        near(hit, own, logit, self.noise[own] * np.exp(-0.4 * fit - 0.2 * ease[hit]))
        twice = hit[rng.random(size) < 0.15]
        logit = 0.5 * ease[twice] - 1 + rng.normal(size=len(twice))
        near(twice, category[twice], logit, 2 * self.noise[category[twice]])
        confused = hit[rng.random(size) < 0.12]
        logit = 0.5 * ease[confused] - 1.2 + rng.normal(size=len(confused))
        near(confused, rng.choice(self.classes, len(confused), p=self.frequency), logit, self.noise[category[confused]])
        anywhere(0.1, -0.3)  # objects that were not labeled
        anywhere(1.2, -3.0)
        image, label, boxes, logit = (np.concatenate(column) for column in zip(*parts, strict=True))
        found = DetectionColumns(image=image, category=label, boxes=boxes, areas=None, scores=_sigmoid(logit))
        return evaluate_columns(truth, found, "bbox", _PARAMS).matches


class SegmentationWorld:
    """Images and segmenters of K classes, by what each image adds to the sums.

    Args:
        task: sem_seg or panoptic.
    """

    def __init__(self, task: str, classes: int, *, skill: float = 0.0, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, classes])
        self.task, self.classes, self.skill = task, classes, skill
        self.chance = _sigmoid(rng.normal(-1.5, 1.2, classes))  # of a class to be in an image
        self.size = rng.normal(8, 1, classes)  # log pixels
        self.quality = rng.normal(1.2, 0.6, classes)

    def sums(self, rng: np.random.Generator, images: int, skills: tuple[float, ...] = (0.0,)) -> list[ImageSums]:
        """Of one segmenter for each skill, on the same images."""
        shape = images, self.classes
        there = rng.random(shape) < self.chance
        easy = rng.normal(0, 0.5, (images, 1)) + rng.normal(0, 0.5, shape)
        if self.task == "sem_seg":
            there[np.arange(images), rng.integers(0, self.classes, images)] = True
            size = np.where(there, np.exp(self.size + rng.normal(0, 1, shape)), 0)
            true = (_WIDTH * _HEIGHT * size / size.sum(axis=1, keepdims=True)).round()
        else:
            true = np.where(there, 1 + rng.poisson(1.5, shape), 0)
        make = self._pixels if self.task == "sem_seg" else self._segments
        return [make(rng, true, self.quality + easy + self.skill + skill) for skill in skills]

    def _pixels(self, rng: np.random.Generator, true: np.ndarray, quality: np.ndarray) -> ImageSums:
        both = (true * _sigmoid(quality + 0.6 + rng.normal(0, 0.7, true.shape))).round()
        lost = (true - both).sum(axis=1, keepdims=True)  # pixels go to classes that are there, and to some that are not
        draw = np.where((true > 0) | (rng.random(true.shape) < 0.05), rng.gamma(1.0, size=true.shape), 1e-9)
        pixels = np.stack([both, true, both + (lost * draw / draw.sum(axis=1, keepdims=True)).round()], axis=1)
        return ImageSums.of_pixels(*self._names(len(true)), pixels)

    def _segments(self, rng: np.random.Generator, true: np.ndarray, quality: np.ndarray) -> ImageSums:
        matched = rng.binomial(true, _sigmoid(quality + rng.normal(0, 0.5, true.shape)))
        mean = 0.5 + 0.5 * _sigmoid(quality)
        iou = matched * np.clip(mean + rng.normal(0, 0.08, true.shape) / np.sqrt(np.maximum(matched, 1)), 0.5, 1)
        false = rng.poisson(0.4 * true * _sigmoid(-quality) + 0.04)
        columns = {"iou": iou, "matched": matched, "false": false, "missed": true - matched}
        things = np.arange(self.classes) < self.classes // 2
        return ImageSums("panoptic", *self._names(len(true)), things, columns)

    def _names(self, images: int) -> tuple[list[str], list[str]]:
        return [str(number) for number in range(images)], [str(number) for number in range(self.classes)]


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.normal(4.2, 0.8, (count, 1)) + rng.normal(0, 0.3, (count, 2)))
    size = size.clip(8, [0.9 * _WIDTH, 0.9 * _HEIGHT])
    return np.concatenate([rng.random((count, 2)) * ([_WIDTH, _HEIGHT] - size), size], axis=1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
