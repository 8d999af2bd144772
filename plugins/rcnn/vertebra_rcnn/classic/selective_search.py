"""Proposals without learning: small segments of even color, merged by likeness until one is left.

Source: Uijlings et al., "Selective Search for Object Recognition", IJCV 104 (2013); the first segments are those of
Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 59 (2004), by scikit-image. Each segment
on the way to the last one gives its box. Unlike the paper, gradients are plain differences of neighboring pixels.
Letters: S segments, P proposals.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

__all__ = ["ColorSpace", "selective_search"]

ColorSpace = Literal["rgb", "hsv", "lab"]

_COLOR_BINS, _ORIENTATIONS, _TEXTURE_BINS = 25, 8, 10  # section 4.2.2 of the paper


def selective_search(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    scales: Sequence[float] = (50.0, 150.0),
    colors: Sequence[ColorSpace] = ("hsv", "lab"),
    sigma: float = 0.8,
    min_size: int = 20,
    min_side: int = 6,
    longest: int = 500,
) -> np.ndarray:
    """Boxes (P, 4) float32 xyxy in pixels, none twice; the later a segment was made, the earlier it tends to come.

    Time and memory grow with the pixels, so a large image is searched at a smaller size, as R-CNN does it.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: shakes the order, so that not all of the best are large (section 4.3).
        scales: of the first segments, the larger the coarser; one search for each.
        colors: spaces in which segments are made and compared; one search for each.
        sigma: standard deviation of the Gaussian that smooths the image first, in pixels.
        min_size: pixels of a first segment at least.
        min_side: boxes with a shorter side are dropped, in pixels.
        longest: longer side of what is searched, in pixels; sigma, min_size and min_side count there.
    """
    height, width = image.shape[:2]
    image = _shrunk(image, longest)
    ranked: list[tuple[float, tuple[int, ...]]] = []
    for color in colors:
        pixels = _converted(image, color)
        for scale in scales:
            boxes = _grouped(pixels, scale, sigma, min_size)
            places = np.arange(len(boxes), 0, -1) * rng.random(len(boxes))  # the last one made has place 1
            ranked += zip(places.tolist(), map(tuple, boxes.tolist()), strict=True)
    found = dict.fromkeys(box for _, box in sorted(ranked))
    boxes = np.array(list(found), np.float32).reshape(-1, 4)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= min_side).all(axis=1)]
    back = [width / image.shape[1], height / image.shape[0]]
    return np.minimum(boxes * (back * 2), [width, height] * 2).astype(np.float32)


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """The image, at most `longest` pixels wide and high."""
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    size = [max(1, round(side * factor)) for side in (image.shape[1], image.shape[0])]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _converted(image: np.ndarray, color: ColorSpace) -> np.ndarray:
    """(H, W, 3) float64, each channel from 0 to 1."""
    from skimage.color import rgb2hsv, rgb2lab

    if color == "hsv":
        return rgb2hsv(image)
    if color == "lab":
        return (rgb2lab(image) + np.array([0, 128, 128])) / (100, 255, 255)
    return image / 255.0


def _grouped(pixels: np.ndarray, scale: float, sigma: float, min_size: int) -> np.ndarray:
    """Boxes of all segments of one search, (2 S - 1, 4) int64 xyxy, in the order in which they are made."""
    from skimage.segmentation import felzenszwalb

    labels = felzenszwalb(pixels, scale=scale, sigma=sigma, min_size=min_size, channel_axis=2)
    segments = _Segments(pixels, labels)
    queue = [(-segments.likeness(a, b), a, b) for a, b in _neighbors(labels)]
    heapq.heapify(queue)
    touching: dict[int, set[int]] = {number: set() for number in range(len(segments.boxes))}
    for _, a, b in queue:
        touching[a].add(b)
        touching[b].add(a)
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in touching or b not in touching:  # one of them has become part of another since
            continue
        new = segments.merge(a, b)
        around = (touching.pop(a) | touching.pop(b)) - {a, b}
        touching[new] = around
        for other in around:
            touching[other] = (touching[other] - {a, b}) | {new}
            heapq.heappush(queue, (-segments.likeness(other, new), other, new))
    return np.array(segments.boxes, np.int64)


class _Segments:
    """Size, box and histograms of segments, first and merged ones."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        count = int(labels.max()) + 1
        self.area = labels.size  # of the image
        self.sizes = np.bincount(labels.ravel(), minlength=count).tolist()
        self.colors = list(_histograms(pixels, labels, count, _COLOR_BINS))
        self.textures = list(_histograms(_gradients(pixels), labels, count, _TEXTURE_BINS))
        self.boxes = [tuple(box) for box in _boxes(labels, count).tolist()]

    def likeness(self, a: int, b: int) -> float:
        """Of two segments, 0 to 4: color, texture, small ones first, and no holes (equations 1 to 5)."""
        color = np.minimum(self.colors[a], self.colors[b]).sum()
        texture = np.minimum(self.textures[a], self.textures[b]).sum()
        x0, y0, x1, y1 = self._around(a, b)
        both = self.sizes[a] + self.sizes[b]
        return float(color + texture + (1 - both / self.area) + (1 - ((x1 - x0) * (y1 - y0) - both) / self.area))

    def merge(self, a: int, b: int) -> int:
        """A new segment made of two; its number."""
        self.boxes.append(self._around(a, b))
        total = self.sizes[a] + self.sizes[b]
        for kind in (self.colors, self.textures):
            kind.append((self.sizes[a] * kind[a] + self.sizes[b] * kind[b]) / total)
        self.sizes.append(total)
        return len(self.boxes) - 1

    def _around(self, a: int, b: int) -> tuple[int, int, int, int]:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = self.boxes[a], self.boxes[b]
        return min(ax0, bx0), min(ay0, by0), max(ax1, bx1), max(ay1, by1)


def _histograms(values: np.ndarray, labels: np.ndarray, count: int, bins: int) -> np.ndarray:
    """(S, C * bins), each row's sum 1, of maps (H, W, C) with values from 0 to 1."""
    channels = values.shape[2]
    cells = np.clip((values * bins).astype(np.int64), 0, bins - 1) + np.arange(channels) * bins  # (H, W, C)
    index = labels[..., None] * (channels * bins) + cells
    table = np.bincount(index.ravel(), minlength=count * channels * bins).reshape(count, -1).astype(np.float64)
    return table / table.sum(axis=1, keepdims=True)


def _gradients(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3 * orientations): how fast each channel rises in each direction, 0 to 1."""
    down, right = np.gradient(pixels, axis=(0, 1))
    angles = 2 * np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS
    rises = np.maximum(np.cos(angles) * right[..., None] + np.sin(angles) * down[..., None], 0)  # (H, W, 3, 8)
    return (rises / max(rises.max(), 1e-9)).reshape(*pixels.shape[:2], -1)


def _boxes(labels: np.ndarray, count: int) -> np.ndarray:
    """(S, 4) xyxy, end exclusive."""
    rows, columns = np.indices(labels.shape)
    flat = labels.ravel()
    low = np.full((count, 2), max(labels.shape), np.int64)
    high = np.zeros((count, 2), np.int64)
    for axis, places in enumerate((columns.ravel(), rows.ravel())):
        np.minimum.at(low[:, axis], flat, places)
        np.maximum.at(high[:, axis], flat, places + 1)
    return np.concatenate((low, high), axis=1)


def _neighbors(labels: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of segments that touch, the smaller number first."""
    pairs = np.concatenate(
        [
            np.stack((a.ravel(), b.ravel()), axis=1)
            for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1]))
        ]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return [tuple(pair) for pair in pairs.tolist()]
