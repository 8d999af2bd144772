"""Semantic segmentation's numbers out of pixel counts, each either a fraction or None with a reason in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vertebra_eval.nearest import listed

__all__ = ["SemanticScores", "pixels_of_classes", "semantic_scores"]

_ABSENT = "the class does not occur in the ground truth; it is excluded from the means"
_NOTHING = "no pixel of the ground truth has a class"


@dataclass
class SemanticScores:
    """The numbers of a semantic evaluation.

    Args:
        metrics: flat keys `sem_seg/mIoU`, `sem_seg/IoU-<class>`, ...
        reasons: one sentence for each metric that is None.
        notes: what one should know before trusting the numbers.
        labels: of the K classes. images: names of the images. pixels: (N, 3, K) of each: in both maps, in the truth, in
            the prediction. The last two where they were kept.
    """

    metrics: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    labels: Sequence[str] = ()
    images: Sequence[str] = ()
    pixels: np.ndarray | None = None

    def column(self, measure: str, labels: Sequence[str]) -> list[float | None]:
        """One measure of each class."""
        return [self.metrics[f"sem_seg/{measure}-{label}"] for label in labels]


def pixels_of_classes(counts: np.ndarray) -> np.ndarray:
    """(K, K+1) counts of an image, see `semantic_scores`, to (3, K): in both maps, in the truth, in the prediction."""
    own = counts[:, :-1]
    return np.stack([own.diagonal(), counts.sum(axis=1), own.sum(axis=0)])


def semantic_scores(counts: np.ndarray, boundary: np.ndarray | None, labels: Sequence[str]) -> SemanticScores:
    """Divide the counts of all images.

    With tp, fp, fn pixels of a class: IoU = tp / (tp + fp + fn), Dice = 2 tp / (2 tp + fp + fn), which is F1 by another
    name, precision = tp / (tp + fp), recall = tp / (tp + fn). Means run over the classes that the ground truth has.
    A pixel that is predicted as no class is missed by its true class.

    Args:
        counts: (K, K+1) whole numbers, row the true class, column the predicted one, the last for none.
        boundary: (3, K) boundary pixels of each class in both, in the truth, in the prediction; None: not wanted.
        labels: of the K classes, as metric keys have them.
    """
    counts = counts.astype(np.int64)
    tp, true, predicted = pixels_of_classes(counts)
    present = true > 0
    total = int(true.sum())
    columns = {
        "IoU": _share(tp, true + predicted - tp),
        "Dice": _share(2 * tp, true + predicted),
        "precision": _share(tp, predicted),
        "recall": _share(tp, true),
    }
    columns["F1"] = columns["Dice"]  # whoever looks for either finds it
    if boundary is not None:
        columns["BoundaryIoU"] = _share(boundary[0], boundary[1] + boundary[2] - boundary[0])

    scores = SemanticScores(labels=list(labels))
    _put(scores, "mIoU", _mean(columns["IoU"][present]))
    _put(scores, "fwIoU", float((columns["IoU"][present] * true[present]).sum() / total) if total else None)
    _put(scores, "pixel_accuracy", int(tp.sum()) / total if total else None)
    _put(scores, "mean_accuracy", _mean(columns["recall"][present]))
    _put(scores, "mDice", _mean(columns["Dice"][present]))
    _put(scores, "mF1", scores.metrics["sem_seg/mDice"])
    _put(scores, "mPrecision", _mean(columns["precision"][present]), "no class of the ground truth is ever predicted")
    if boundary is not None:
        _put(scores, "mBoundaryIoU", _mean(columns["BoundaryIoU"][present]))
    for row, label in enumerate(labels):
        for name, values in columns.items():
            value = float(values[row]) if present[row] and not np.isnan(values[row]) else None
            why = f"{label} is never predicted" if present[row] else _ABSENT
            _put(scores, f"{name}-{label}", value, why)
    scores.notes += _notes(counts, present, predicted, labels)
    return scores


def _put(scores: SemanticScores, name: str, value: float | None, why: str = _NOTHING) -> None:
    scores.metrics[f"sem_seg/{name}"] = value
    if value is None:
        scores.reasons[f"sem_seg/{name}"] = why


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _notes(counts: np.ndarray, present: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> list[str]:
    notes = []
    if len(labels) == 1:
        notes.append(
            f"sem_seg: {labels[0]} is the only class: every pixel that counts is of it, so mIoU and the accuracies are "
            "always 1 and say nothing; name the rest as a class too"
        )
    absent = [labels[row] for row in np.flatnonzero(~present).tolist()]
    if absent and present.any():
        pixels = int(predicted[~present].sum())
        wrong = f"; {pixels:,} pixels were predicted as such, which counts against the true classes" if pixels else ""
        notes.append(
            "sem_seg: classes that do not occur in the ground truth are excluded from the means: "
            f"{listed(absent)}{wrong}"
        )
    none = int(counts[:, -1].sum())
    if none:
        notes.append(f"sem_seg: {none:,} pixels with a true class were predicted as none and count as missed")
    return notes
