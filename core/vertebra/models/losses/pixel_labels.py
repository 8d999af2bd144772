"""Labels of pixels as the losses of semantic segmentation take them.

Letters: N images, K classes, H x W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.models.contracts import Loss

__all__ = ["check_labels", "check_pixels", "check_weights", "known_pixels", "one_hot", "too_few_classes", "weights_of"]


def check_pixels(loss: Loss, logits: Tensor, labels: Tensor, ignore_index: int) -> None:
    """Refuses logits and labels that do not belong together, or that `loss` cannot learn from.

    Raises:
        ValueError: shapes differ, too few classes, or `ignore_index` is one of the classes.
        DataError: a label is neither a class nor ignored, see `check_labels`.
    """
    name = type(loss).__name__
    if logits.dim() != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"{name}: logits {tuple(logits.shape)} must be (N, K, H, W) and labels {tuple(labels.shape)} (N, H, W) of "
            "the same N, H and W; resize the logits to the labels first"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"{name}: labels are {labels.dtype}; they must be int64 class ids")
    check_labels(loss, labels, logits.shape[1], ignore_index)


def check_labels(loss: Loss, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuses labels that are neither a class in [0, K) nor `ignore_index`.

    Fewer classes than `loss` needs are refused too, and `class_weights` that are not one for each class.

    On the CPU this is an exception that names the value. On a GPU looking at a value would stop the queue at each
    step, so there the check is an assertion inside the device: the run ends with this message too, but the process
    cannot go on with the device. Datasets with a foreign void value say so in their format (`ignore_label`).

    Raises:
        DataError: on the CPU, at the first such batch.
    """
    name = type(loss).__name__
    if num_classes < loss.min_classes:
        raise ValueError(too_few_classes(loss, num_classes))
    check_weights(name, getattr(loss, "class_weights", None), num_classes)
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f"{name}: ignore_index {ignore_index} is one of the {num_classes} classes; "
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
        torch._assert_async(~wrong.any(), f"{name}: {fix}")
    elif labels.device.type == "cpu" and bool(wrong.any()):
        values = labels[wrong].unique()
        shown = ", ".join(map(str, values[:5].tolist())) + (", ..." if len(values) > 5 else "")
        raise DataError(f"{name}: {int(wrong.sum())} pixels have the label {shown}; {fix}")


def too_few_classes(loss: Loss, num_classes: int) -> str:
    """What to tell of a loss that is constant for so few classes, and how to fix it."""
    return (
        f"{type(loss).__name__} needs at least {loss.min_classes} classes and has {num_classes}: the softmax of a "
        "single score is always 1, so the loss is constant and nothing is learned.\n"
        "  Name what the other pixels are as a class too: classes: [background, object], and label_map where the masks "
        "have other numbers, as {0: 0, 255: 1}"
    )


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
    if not any(values):
        raise ValueError(f"class_weights {values} are all 0: the loss is always 0, and nothing is learned")
    return torch.tensor(values, dtype=torch.float32)


def check_weights(loss: str, weights: Tensor | None, num_classes: int) -> None:
    """Refuses `class_weights` that are not one for each class; `loss` is the name for the message."""
    if weights is not None and len(weights) != num_classes:
        raise ValueError(f"{loss}: {len(weights)} class_weights for {num_classes} classes")
