"""Pictures of label maps: what was predicted, where it is wrong, and where the model was in doubt.

Letters: K classes, H x W pixels. Every picture is (H', W', 3) uint8, enlarged where the image is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertebra.visualize.canvas import Canvas, inner_point
from vertebra.visualize.legend import with_legend, with_scale
from vertebra.visualize.marks import as_array, as_image, check_size
from vertebra.visualize.palette import Color, class_color
from vertebra.visualize.sheets import contact_sheet
from vertebra.visualize.style import Style, class_name

__all__ = [
    "draw_errors",
    "draw_sem_seg",
    "draw_sem_seg_overlay",
    "draw_semantic_panel",
    "draw_uncertainty",
    "entropy_map",
]

WRONG: Color = (214, 40, 57)
CORRECT: Color = (150, 178, 160)
IGNORED: Color = (30, 30, 30)
_NAMED_FROM = 0.004  # part of the picture from which on a region is named in it
_DOUBT = np.array(  # dark and dull to light and warm, so that doubt shows on gray paper too
    [(12, 10, 38), (74, 18, 107), (165, 44, 96), (229, 92, 48), (251, 180, 26), (252, 255, 164)], np.float64
)


def draw_sem_seg(
    image: Any,
    sem_seg: Any,
    class_names: Sequence[str] | None = None,
    *,
    ignore_label: int = 255,
    colors: Sequence[Color] | None = None,
    style: Style | None = None,
) -> np.ndarray:
    """A class per pixel, named where its region is large enough; ignored pixels are hatched black.

    Args:
        image: (H, W, 3) uint8 RGB, or a tensor (3, H, W).
        sem_seg: (H, W) labels, or (K, H, W) scores whose largest is taken.
        colors: of the classes, as the dataset has them (`metadata.stuff_colors`); None: those of `class_color`.
    """
    style = style or Style()
    pixels = as_image(image)
    labels = _labels(sem_seg)
    check_size(labels, pixels, "semantic labels")
    canvas = Canvas(pixels, style.min_side)
    present = [int(label) for label in np.unique(labels)]
    for label in present:
        mask = labels == label
        if label == ignore_label:
            canvas.fill(mask, (0, 0, 0), alpha=0.7, outline=None, hatched=True)
        else:
            color = _color(label, colors)
            canvas.fill(mask, color, alpha=style.mask_alpha + 0.1, outline=color)
    if style.labels is not False:
        for label in present:
            mask = labels == label
            if label != ignore_label and mask.mean() >= _NAMED_FROM:
                canvas.label_at(class_name(label, class_names), inner_point(mask), _color(label, colors))
    return canvas.result()


def draw_sem_seg_overlay(
    image: Any,
    sem_seg: Any,
    class_names: Sequence[str] | None = None,
    *,
    ignore_label: int = 255,
    colors: Sequence[Color] | None = None,
    style: Style | None = None,
) -> np.ndarray:
    """`draw_sem_seg` with a legend below: the classes that occur and how much of the picture each covers."""
    picture = draw_sem_seg(image, sem_seg, class_names, ignore_label=ignore_label, colors=colors, style=style)
    labels = _labels(sem_seg)
    return with_legend(picture, _entries([labels], class_names, ignore_label, colors, shares=True))


def draw_errors(
    image: Any, predicted: Any, truth: Any, *, ignore_label: int = 255, style: Style | None = None
) -> np.ndarray:
    """Where a prediction is right (gray), wrong (red) and not judged (hatched black), with the shares below.

    The shares of right and wrong pixels are of those that are judged.

    Args:
        predicted: (H, W) labels, or (K, H, W) scores.
        truth: (H, W) labels, `ignore_label` where a pixel has none.
    """
    style = style or Style()
    pixels = as_image(image)
    predicted, truth = _labels(predicted), _labels(truth)
    check_size(predicted, pixels, "predicted labels")
    check_size(truth, pixels, "true labels")
    ignored = truth == ignore_label
    wrong = ~ignored & (predicted != truth)
    right = ~ignored & ~wrong
    canvas = Canvas(_faded(pixels), style.min_side)
    canvas.fill(right, CORRECT, alpha=0.25, outline=None)
    canvas.fill(ignored, (0, 0, 0), alpha=0.7, outline=None, hatched=True)
    canvas.fill(wrong, WRONG, alpha=0.8, outline=None)
    judged = max(int(right.sum() + wrong.sum()), 1)
    entries = [
        (CORRECT, f"correct {right.sum() / judged:.1%}"),
        (WRONG, f"wrong {wrong.sum() / judged:.1%}"),
        (IGNORED, f"ignored {ignored.mean():.1%} of all"),
    ]
    return with_legend(canvas.result(), entries)


def draw_uncertainty(image: Any, doubt: Any, *, style: Style | None = None) -> np.ndarray:
    """How undecided the model was at each pixel, from dark (sure) to light, with a scale and the mean below.

    Args:
        doubt: scores (K, H, W), see `entropy_map`; or an entropy (H, W) from 0 to 1.
    """
    style = style or Style()
    pixels = as_image(image)
    values = as_array(doubt)
    if values.ndim == 3:
        values = as_array(entropy_map(torch.as_tensor(doubt)))
    check_size(values, pixels, "an entropy map")
    heat = _doubt_colors(np.clip(values, 0, 1))
    gray = _faded(pixels).mean(axis=2, keepdims=True) - 128.0  # the image's contours, faint
    mixed = np.clip(heat + 0.3 * gray, 0, 255).astype(np.uint8)
    picture = Canvas(mixed, style.min_side).result()
    scale = _doubt_colors(np.linspace(0, 1, 64)).astype(np.uint8)
    return with_scale(picture, scale, ("sure", "undecided"), f"mean {float(values.mean()):.2f}")


def entropy_map(scores: Tensor) -> Tensor:
    """Entropy of each pixel's class probabilities as a part of its maximum log K. (K, H, W) to (H, W) in 0 to 1.

    Nothing waits for the device.

    Args:
        scores: logits, as the semantic heads' `sem_seg`, of any float type; those that are nowhere negative and sum to
            1 at every pixel are taken as the probabilities themselves.
    """
    if scores.dim() != 3:
        raise ValueError(f"entropy_map takes scores (K, H, W), got shape {tuple(scores.shape)}")
    scores = scores.float()
    if len(scores) == 1:
        return torch.zeros_like(scores[0])  # one class is never in doubt
    are_probabilities = (scores >= 0).all() & ((scores.sum(dim=0) - 1).abs() < 1e-2).all()
    p = torch.where(are_probabilities, scores, scores.softmax(dim=0))
    return torch.special.entr(p).sum(dim=0).div_(math.log(len(scores))).clamp_(0, 1)


def draw_semantic_panel(
    image: Any,
    sem_seg: Any,
    truth: Any | None = None,
    class_names: Sequence[str] | None = None,
    *,
    doubt: Any | None = None,
    ignore_label: int = 255,
    colors: Sequence[Color] | None = None,
    said: str = "",
    style: Style | None = None,
) -> np.ndarray:
    """All of it on one sheet: truth and prediction, below them errors and uncertainty, one legend for all.

    Without truth: the prediction and the uncertainty. The uncertainty is omitted where it is not known.

    Args:
        sem_seg: scores (K, H, W), or labels (H, W).
        truth: (H, W) labels.
        doubt: an entropy map (H, W); None: that of the scores, where `sem_seg` are scores.
        said: of the prediction, in its title.
    """
    style = style or Style()
    values = as_array(sem_seg)
    labels = _labels(values)
    draw = partial(draw_sem_seg, image, class_names=class_names, ignore_label=ignore_label, colors=colors, style=style)
    pictures, titles, shown = [], [], [labels]
    if truth is not None:
        truth = _labels(truth)
        shown.append(truth)
        pictures.append(draw(truth))
        titles.append("ground truth")
    pictures.append(draw(labels))
    titles.append(f"predicted: {said}" if said else "predicted")
    if truth is not None:
        pictures.append(draw_errors(image, labels, truth, ignore_label=ignore_label, style=style))
        titles.append("errors")
    if doubt is None and values.ndim == 3:
        doubt = values
    if doubt is not None:
        pictures.append(draw_uncertainty(image, doubt, style=style))
        titles.append("uncertainty (entropy)")
    most = max(max(picture.shape[:2]) for picture in pictures)
    sheet = contact_sheet(pictures, columns=2, titles=titles, cell_size=(most, most))
    return with_legend(sheet, _entries(shown, class_names, ignore_label, colors))


def _labels(sem_seg: Any) -> np.ndarray:
    """(H, W) labels from labels or scores (K, H, W)."""
    values = as_array(sem_seg)
    return values.argmax(axis=0) if values.ndim == 3 else values


def _color(label: int, colors: Sequence[Color] | None) -> Color:
    if colors is not None and 0 <= label < len(colors):
        red, green, blue = colors[label]
        return int(red), int(green), int(blue)
    return class_color(label)


def _entries(
    maps: Sequence[np.ndarray],
    class_names: Sequence[str] | None,
    ignore_label: int,
    colors: Sequence[Color] | None,
    shares: bool = False,
) -> list[tuple[Color, str]]:
    """Legend of the labels in these maps, in their order; ignored pixels last."""
    labels, counts = np.unique(np.concatenate([np.ravel(one) for one in maps]), return_counts=True)
    parts = dict(zip(labels.tolist(), (counts / counts.sum()).tolist(), strict=True))
    entries = [
        (_color(label, colors), class_name(label, class_names) + (f" {part:.0%}" if shares else ""))
        for label, part in parts.items()
        if label != ignore_label
    ]
    if ignore_label in parts:
        entries.append((IGNORED, "ignored" + (f" {parts[ignore_label]:.0%}" if shares else "")))
    return entries


def _faded(pixels: np.ndarray) -> np.ndarray:
    """The image in gray and with less contrast, so that what is drawn over it stands out."""
    gray = pixels.astype(np.float32).mean(axis=2, keepdims=True)
    return np.broadcast_to((90 + 0.6 * gray).clip(0, 255), pixels.shape).astype(np.uint8)


def _doubt_colors(values: np.ndarray) -> np.ndarray:
    """(...,) from 0 to 1 to colors (..., 3) float, between those of the table."""
    places = np.linspace(0, 1, len(_DOUBT))
    return np.stack([np.interp(values, places, _DOUBT[:, channel]) for channel in range(3)], axis=-1)
