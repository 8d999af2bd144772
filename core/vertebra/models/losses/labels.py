"""Labels of pixels as the losses of semantic segmentation take them.

Letters: N images, K classes, H x W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vertebra.errors import DataError

__all__ = ["check_labels", "check_pixels", "check_weights", "known_pixels", "one_hot", "weights_of"]


def check_pixels(loss: str, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Refuses logits and labels that do not belong together; `loss` is the name for the message.

    Raises:
        ValueError: shapes differ, or `ignore_index` is one of the classes.
        DataError: a label is neither a class nor ignored, see `check_labels`.
    """
    if logits.dim() != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"{loss}: logits {tuple(logits.shape)} must be (N, K, H, W) and labels {tuple(labels.shape)} (N, H, W) of "
            "the same N, H and W; resize the logits to the labels first"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"{loss}: labels are {labels.dtype}; they must be int64 class ids")
    check_labels(loss, labels, logits.shape[1], ignore_index)


def check_labels(loss: str, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuses labels that are neither a class in [0, K) nor `ignore_index`.

    On the CPU this is an exception that names the value. On a GPU looking at a value would stop the queue at each
    step, so there the check is an assertion inside the device: the run ends with this message too, but the process
    cannot go on with the device. Datasets with a foreign void value say so in their format (`ignore_label`).

    Raises:
        DataError: on the CPU, at the first such batch.
    """
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f"{loss}: ignore_index {ignore_index} is one of the {num_classes} classes; "
            "set ignore_index to a number that is not, such as -100"
        )
    if torch.compiler.is_compiling() or labels.numel() == 0:
        return
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    fix = (
        f"labels must be class ids 0 to {num_classes - 1} or {ignore_index} (ignored). Is the number of classes right? "
        "Does the dataset mark void pixels by another value (ignore_label)?"
    )
    if labels.is_cuda:
        torch._assert_async(~wrong.any(), f"{loss}: {fix}")
    elif labels.device.type == "cpu" and bool(wrong.any()):
        values = labels[wrong].unique()
        shown = ", ".join(map(str, values[:5].tolist())) + (", ..." if len(values) > 5 else "")
        raise DataError(f"{loss}: {int(wrong.sum())} pixels have the label {shown}; {fix}")


def known_pixels(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """(labels with 0 where ignored, bool mask of the pixels that count), both (N, H, W)."""
    known = labels != ignore_index
    return labels.where(known, 0), known


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class ids (N, H, W) to bool (N, K, H, W), False everywhere for an id that is not a class."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)


def weights_of(values: list[float] | None) -> Tensor | None:
    """`class_weights` as (K,) float32; None: all classes weigh the same."""
    if values is None:
        return None
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"class_weights {values} must be some numbers of at least 0, one for each class")
    return torch.tensor(values, dtype=torch.float32)


def check_weights(loss: str, weights: Tensor | None, num_classes: int) -> None:
    """Refuses `class_weights` that are not one for each class; `loss` is the name for the message."""
    if weights is not None and len(weights) != num_classes:
        raise ValueError(f"{loss}: {len(weights)} class_weights for {num_classes} classes")
