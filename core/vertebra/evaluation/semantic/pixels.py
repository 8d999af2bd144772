"""Pixel counts of one semantic segmentation, on the device of the prediction and without waiting for it.

Letters: K classes, H x W pixels. A code is a class from 0 to K - 1, or K: no class, or K + 1: an unknown label.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "boundary_counts",
    "boundary_radius",
    "class_pixels",
    "detectron2_boundary_counts",
    "image_quality",
    "pixel_counts",
    "to_codes",
]


def to_codes(labels: Tensor, num_classes: int, ignore_label: int) -> Tensor:
    """(H, W) labels of any whole type to codes, int64."""
    labels = labels.long()
    codes = torch.where((labels < 0) | (labels >= num_classes), num_classes + 1, labels)
    return torch.where(labels == ignore_label, num_classes, codes)


def pixel_counts(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Codes (H, W) to (K+1, K+2) int64: the true code is the row, the predicted one the column."""
    columns = num_classes + 2
    cells = truth * columns + predicted
    return _bincount(cells, (num_classes + 1) * columns).reshape(num_classes + 1, columns)


def class_pixels(counts: Tensor) -> Tensor:
    """`pixel_counts` to (3, K) int64, ignored pixels aside: in both maps, in the truth, in the prediction."""
    counts = counts[:-1]
    own = counts[:, : len(counts)]
    return torch.stack([own.diagonal(), counts.sum(dim=1), own.sum(dim=0)])


def image_quality(counts: Tensor) -> Tensor:
    """Mean IoU over the true classes of one image, from its `pixel_counts`; NaN if it has none. Scalar float64."""
    hit, true, predicted = class_pixels(counts).double()
    iou = hit / (true + predicted - hit).clamp(min=1)
    present = true > 0
    return (iou * present).sum() / present.sum()


def boundary_radius(size: tuple[int, int], ratio: float) -> int:
    """Width of a boundary in pixels: `ratio` of the image's diagonal, at least 1."""
    height, width = size
    return max(1, round(ratio * (height**2 + width**2) ** 0.5))


def boundary_counts(truth: Tensor, predicted: Tensor, num_classes: int, radius: int) -> Tensor:
    """Boundary pixels of each class: in both, in the truth, in the prediction. Codes (H, W) -> (3, K) int64.

    Source: Cheng et al., "Boundary IoU", arXiv:2103.16562: a mask's boundary is the mask without its erosion by
    `radius` steps of a 3 x 3 square, and the image's edge is a contour too. All classes are done at once, as a
    pixel lies on the boundary of its own class's mask alone. In addition, pixels without a true class make no contour
    and are ignored, in both maps: what is predicted there makes no difference.
    """
    ignored = truth == num_classes
    true_edge = ~ignored & ~_is_inner(truth, ignored, radius)
    predicted_edge = ~ignored & ~_is_inner(predicted, ignored, radius)
    parts = (true_edge & predicted_edge & (truth == predicted), true_edge, predicted_edge)
    codes = (truth, truth, predicted)
    kept = [torch.where(part, code, num_classes) for part, code in zip(parts, codes, strict=True)]
    return torch.stack([_bincount(code, num_classes + 2)[:num_classes] for code in kept])


def detectron2_boundary_counts(truth: Tensor, predicted: Tensor, num_classes: int, radius: int) -> Tensor:
    """The same three counts by the rule of Detectron2 0.6's SemSegEvaluator. Codes (H, W) -> (3, K) int64.

    There the map of class numbers is eroded as if it were a gray image, with zeros around it, and the difference to
    what it was is counted as if it were a class number again. Class 0 thereby gets all pixels off the contours, and the
    numbers depend on the order of the classes; use it to compare with Detectron2's, not to judge.
    """
    edges = [codes - _window_min(codes, radius, outside=0) for codes in (truth, predicted.clamp(max=num_classes))]
    counts = pixel_counts(edges[0], edges[1], num_classes)[:num_classes, :num_classes]
    return torch.stack([counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)])


def _is_inner(codes: Tensor, ignored: Tensor, radius: int) -> Tensor:
    """Where the window of `radius` around a pixel holds no other code, ignored pixels aside. (H, W) bool."""
    most = torch.iinfo(torch.int32).max
    codes = codes.int()
    least = _window_min(torch.where(ignored, most, codes), radius, outside=-1)
    greatest = -_window_min(torch.where(ignored, most, -codes), radius, outside=1)
    return least == greatest


def _window_min(values: Tensor, radius: int, outside: int) -> Tensor:
    """Minimum over the (2 radius + 1)^2 pixels around each pixel. (H, W) -> (H, W)."""
    padded = torch.nn.functional.pad(values[None], (radius,) * 4, value=outside)[0]
    return _running_min(_running_min(padded, 2 * radius + 1).T, 2 * radius + 1).T


def _running_min(values: Tensor, length: int) -> Tensor:
    """Minimum over `length` neighbors along the last axis, which gets shorter by length - 1; log2(length) steps."""
    width = 1
    while 2 * width <= length:
        values = torch.minimum(values[..., :-width], values[..., width:])
        width *= 2
    rest = length - width
    return torch.minimum(values[..., :-rest], values[..., rest:]) if rest else values


def _bincount(codes: Tensor, size: int) -> Tensor:
    """(size,) int64, how often each number from 0 to size - 1 occurs."""
    codes = codes.reshape(-1)
    if codes.device.type == "cpu":
        return torch.bincount(codes, minlength=size)
    counts = torch.zeros(size, dtype=torch.int64, device=codes.device)  # bincount would wait for the largest code
    return counts.index_add_(0, codes, torch.ones_like(codes))
