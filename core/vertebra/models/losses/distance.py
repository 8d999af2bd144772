"""Losses that know how far a pixel is from a border.

Letters: N images, K classes, H x W pixels.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vertebra.models.contracts import Loss
from vertebra.models.losses.distance_maps import connected_cells, distances_to_two_cells, signed_distance
from vertebra.models.losses.pixel_labels import check_pixels, one_hot, weights_of
from vertebra.models.losses.pixels import pixel_entropy

__all__ = ["BoundaryLoss", "DistanceWeightedCrossEntropy"]


class BoundaryLoss(Loss):
    """The mean of softmax probability times signed distance to the true region's border, over classes and pixels.

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", arXiv:1812.07032, equation 5. The
    distance is above 0 outside a region and at most 0 inside, in pixels, so that the loss is negative for a good
    prediction. Its slope is small where little is predicted: add it to an overlap loss (`CompoundLoss`), as the paper
    does. A class that an image has none of costs nothing there. The distances are exact and are made on the device of
    the labels at each call, see `distance_to` for what it costs; ignored pixels are outside every region.

    Args:
        classes: class ids that count; None: all. The paper: the foreground alone.
        max_distance: greater distances become this, in pixels, which may save time; None: exact ones.
        ignore_index: label without loss.
    """

    min_classes: ClassVar[int] = 2

    def __init__(
        self, classes: list[int] | None = None, max_distance: float | None = None, ignore_index: int = 255
    ) -> None:
        super().__init__()
        if max_distance is not None and max_distance <= 0:
            raise ValueError(f"BoundaryLoss: max_distance is {max_distance}; it must be above 0")
        self.classes = classes
        self.max_distance = max_distance
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        p, truth = logits.float().softmax(dim=1), one_hot(labels, logits.shape[1])
        if self.classes is not None:
            if not self.classes or not 0 <= min(self.classes) <= max(self.classes) < logits.shape[1]:
                raise ValueError(f"BoundaryLoss: classes {self.classes} must be some of 0 to {logits.shape[1] - 1}")
            p, truth = p[:, self.classes], truth[:, self.classes]
        known = labels != self.ignore_index
        distance = signed_distance(truth, self.max_distance) * known[:, None]
        return (p * distance).sum() / (known.sum() * p.shape[1]).clamp(min=1)


class DistanceWeightedCrossEntropy(Loss):
    """Cross entropy that weighs the narrow gaps between cells: w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Source: Ronneberger et al., "U-Net", arXiv:1505.04597, equation 2. d1 and d2 are the distances of a background
    pixel to the nearest and the second nearest cell, in pixels. The cells are found in the labels: connected regions
    (over sides of pixels) of one class other than the background. Cells that touch must therefore be parted by a line
    of background in the labels, as the paper does. Pixels of cells have the weight w_c alone.
    Distances at which the second term is below w0 e^-18 are not looked for: 6 sigma, in whole pixels.
    The search for regions reads one answer from the device in each of its few rounds.
    The loss is the sum of the weighted entropies divided by the number of pixels that count, not by their weights.

    Args:
        w0: what a pixel has more that lies between two touching cells.
        sigma: width of the gaps that are weighed, in pixels.
        background: class id of what lies between cells.
        class_weights: the K factors w_c; None: all 1.
        ignore_index: label without loss.
    """

    min_classes: ClassVar[int] = 2
    class_weights: Tensor | None

    def __init__(
        self,
        w0: float = 10.0,
        sigma: float = 5.0,
        background: int = 0,
        class_weights: list[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if w0 < 0 or sigma <= 0:
            raise ValueError(f"DistanceWeightedCrossEntropy: w0 is {w0} and sigma {sigma}; they must be positive")
        self.w0 = w0
        self.sigma = sigma
        self.background = background
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K, H, W) and labels (N, H, W) to a scalar."""
        check_pixels(self, logits, labels, self.ignore_index)
        known = labels != self.ignore_index
        losses = pixel_entropy(logits, labels, self.ignore_index) * self.weigh(labels)
        return losses.sum() / known.sum().clamp(min=1)

    @torch.no_grad()
    def weigh(self, labels: Tensor) -> Tensor:
        """The map w (N, H, W) float32 of labels (N, H, W); whatever stands at ignored pixels costs nothing."""
        cells = connected_cells(labels, self.background, self.ignore_index)
        first, second = distances_to_two_cells(cells, math.ceil(6 * self.sigma))
        gap = torch.exp(-((first + second) ** 2) / (2 * self.sigma**2))
        extra = self.w0 * gap * (labels == self.background)
        if self.class_weights is None:
            return 1 + extra
        return self.class_weights[labels.where(labels != self.ignore_index, 0)] + extra
