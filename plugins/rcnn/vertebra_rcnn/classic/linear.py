"""What is learned on the features: a linear SVM for each class, and a ridge regression of its boxes.

Source: Girshick et al., "Rich feature hierarchies", arXiv:1311.2524, section 2.3 and appendices B and C. As there,
features are scaled to a mean length of 20, and hard negatives are looked for in what the first SVM gets wrong.
Letters: P proposals, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vertebra.detection import Box2BoxTransform

__all__ = ["BoxRidges", "LinearClassifiers"]

_LENGTH = 20.0  # mean length of a feature vector
_NEVER = -100.0  # the answer for a class of which nothing is known; its sigmoid is 0


@dataclass
class LinearClassifiers:
    """One SVM a class. Attributes: weight (K, D), bias (K,), and the factor on the features."""

    weight: np.ndarray
    bias: np.ndarray
    factor: float

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        overlaps: np.ndarray,
        is_truth: np.ndarray,
        rng: np.random.Generator,
        *,
        cost: float = 1e-3,
        negative_iou: float = 0.3,
        rounds: int = 2,
    ) -> LinearClassifiers:
        """Trains on proposals and ground-truth boxes of all images together. A class without examples is never found.

        Args:
            features: (P, D).
            overlaps: (P, K), greatest IoU with a ground-truth box of each class.
            is_truth: (P, K) bool, which rows are a class's ground-truth boxes: its positives.
            cost: the SVM's C.
            negative_iou: rows with less overlap than this are negatives; what lies between is ignored.
            rounds: trainings of each class; before each but the first, hard negatives join.
        """
        factor = _LENGTH / max(float(np.linalg.norm(features, axis=1).mean()), 1e-9)
        scaled = features * factor
        num_classes = overlaps.shape[1]
        weight, bias = np.zeros((num_classes, features.shape[1])), np.full(num_classes, _NEVER)
        for label in range(num_classes):
            positive = np.flatnonzero(is_truth[:, label])
            negative = np.flatnonzero((overlaps[:, label] < negative_iou) & ~is_truth[:, label])
            if len(positive) and len(negative):
                weight[label], bias[label] = _mined(scaled, positive, negative, rng, cost, rounds)
        return cls(weight, bias, factor)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(P, D) to (P, K): the distance from each class's plane, 1 at the margin; above 0 is inside."""
        return (features * self.factor) @ self.weight.T + self.bias


def _mined(
    features: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    rng: np.random.Generator,
    cost: float,
    rounds: int,
) -> tuple[np.ndarray, float]:
    """Weight (D,) and bias of one SVM, its negatives chosen by what the SVM before got wrong."""
    from sklearn.svm import LinearSVC

    used = rng.permutation(negative)[: 5 * len(positive) + 200]
    for turn in range(rounds):
        rows = np.concatenate((positive, used))
        targets = np.arange(len(rows)) < len(positive)
        svm = LinearSVC(C=cost, class_weight={True: 2.0, False: 1.0}, dual="auto", max_iter=5000, random_state=0)
        svm.fit(features[rows], targets)
        if turn + 1 < rounds:
            plane = svm.coef_[0].astype(features.dtype)  # in double precision numpy would copy all features
            hard = negative[features[negative] @ plane + svm.intercept_[0] > -1]
            easy = used[features[used] @ plane + svm.intercept_[0] > -1.2]  # what is far off teaches nothing more
            used = np.union1d(hard, easy) if len(hard) else used
    return svm.coef_[0], float(svm.intercept_[0])


@dataclass
class BoxRidges:
    """One ridge regression of four deltas a class. Attributes: weight (K, 4, D), bias (K, 4), the features' factor."""

    weight: np.ndarray
    bias: np.ndarray
    factor: float

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        boxes: np.ndarray,
        truth: np.ndarray,
        overlaps: np.ndarray,
        *,
        least_iou: float = 0.6,
        strength: float = 1000.0,
    ) -> BoxRidges:
        """Trains on the proposals that overlap an object well.

        Args:
            features: (P, D).
            boxes: (P, 4) xyxy in pixels.
            truth: (P, K, 4), the ground-truth box of each class that each proposal overlaps most.
            overlaps: (P, K), that IoU.
            strength: of the regularization.
        """
        from sklearn.linear_model import Ridge

        num_classes = overlaps.shape[1]
        factor = _LENGTH / max(float(np.linalg.norm(features, axis=1).mean()), 1e-9)
        weight, bias = np.zeros((num_classes, 4, features.shape[1])), np.zeros((num_classes, 4))
        for label in range(num_classes):
            rows = np.flatnonzero(overlaps[:, label] >= least_iou)
            if len(rows) < 2:
                continue
            pairs = (torch.from_numpy(x[rows]).float() for x in (boxes, truth[:, label]))
            targets = Box2BoxTransform().get_deltas(*pairs).numpy()
            ridge = Ridge(alpha=strength).fit(features[rows] * factor, targets)
            weight[label], bias[label] = ridge.coef_, ridge.intercept_
        return cls(weight, bias, factor)

    def refined(self, features: np.ndarray, boxes: Tensor) -> Tensor:
        """(P, D) and boxes (P, 4) to a better box for each class, (P, K, 4)."""
        deltas = np.einsum("pd,kjd->pkj", features * self.factor, self.weight) + self.bias
        flat = torch.from_numpy(deltas.reshape(len(deltas), 4 * len(self.weight))).float()
        return Box2BoxTransform().apply_deltas(flat, boxes).view(len(boxes), len(self.weight), 4)
