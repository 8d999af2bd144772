"""Pictures of annotations and predictions. Every function takes an image and returns a new one, (H', W', 3) uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vertebra.data.images.read import read_image
from vertebra.data.panoptic_labels import stuff_segment_names
from vertebra.data.semantic.label_reader import LabelReader
from vertebra.errors import DataError
from vertebra.visualize.canvas import Canvas, inner_point
from vertebra.visualize.marks import Marks, as_array, as_image, check_size, read_marks
from vertebra.visualize.palette import Color, class_color, shade
from vertebra.visualize.semantic import draw_sem_seg
from vertebra.visualize.style import Style, class_name

__all__ = ["draw_dataset_dict", "draw_instances", "draw_panoptic", "skeleton_of"]

_NO_CLASS = 65535  # no dataset has as many classes


def draw_instances(
    image: Any,
    instances: Any,
    class_names: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.0,
    skeleton: Sequence[tuple[int, int]] = (),
    style: Style | None = None,
) -> np.ndarray:
    """Boxes, masks, keypoints and names of objects.

    Args:
        image: (H, W, 3) uint8 RGB, or a tensor (3, H, W).
        instances: `Instances` in this image's pixels (fields `pred_*` and `scores`, or `gt_*`), a dict that holds them
            under `instances`, or a standard dataset dict. Crowds are hatched. A field of `RotatedBoxes` is drawn
            instead of the upright boxes.
        class_names: written on the labels; class numbers where they are missing.
        score_threshold: objects with a lower score are not drawn, as are those whose box is not finite.
        skeleton: pairs of keypoint numbers, from 0, that a line joins.
    """
    style = style or Style()
    pixels = as_image(image)
    marks = read_marks(instances, pixels.shape[:2])
    marks = marks.select(np.flatnonzero(np.isfinite(marks.boxes).all(axis=1)))
    if marks.scores is not None:
        order = np.argsort(marks.scores, kind="stable")  # the highest score on top
        marks = marks.select(order[marks.scores[order] >= score_threshold])
    canvas = Canvas(pixels, style.min_side)
    colors = _object_colors(marks, class_names, style)
    _draw_masks(canvas, marks, colors, style)
    for i in range(len(marks)):
        if marks.corners is None:
            canvas.box(marks.boxes[i], colors[i], dashed=bool(marks.crowd[i]))
        else:
            canvas.polygon(marks.corners[i], colors[i])
    if marks.keypoints is not None:
        for points, box, color in zip(marks.keypoints, marks.boxes, colors, strict=True):
            _draw_keypoints(canvas, points, skeleton, color, box)
    for i in reversed(range(len(marks))):  # the highest score first, so that it gets the best place
        if _is_labeled(canvas, marks, i, class_names, style):
            canvas.label(_label_text(marks, i, class_names), marks.boxes[i], colors[i])
    return canvas.result()


def draw_panoptic(
    image: Any,
    ids: Any,
    segments: Sequence[Mapping[str, Any]],
    thing_classes: Sequence[str] | None = None,
    stuff_classes: Sequence[str] | None = None,
    *,
    style: Style | None = None,
) -> np.ndarray:
    """A segment per pixel: things in shades of their class's color with a light outline, stuff in its own colors.

    Args:
        ids: (H, W) segment ids; pixels of no segment are hatched black.
        segments: dicts with `id`, `category_id`, `isthing` and perhaps `iscrowd`, `score`, as Detectron2's
            `segments_info`: category ids count things and stuff from 0 each.
        thing_classes, stuff_classes: their names, in the order of those numbers; see `stuff_segment_names`.
    """
    style = style or Style()
    pixels = as_image(image)
    ids = as_array(ids)
    check_size(ids, pixels, "segment ids")
    canvas = Canvas(pixels, style.min_side)
    void = ~np.isin(ids, [segment["id"] for segment in segments])
    canvas.fill(void, (0, 0, 0), alpha=0.7, outline=None, hatched=True)
    labels = []
    seen: dict[int, int] = {}
    for segment in sorted(segments, key=lambda s: bool(s["isthing"])):  # stuff first, things over its outlines
        mask = ids == segment["id"]
        category, thing = int(segment["category_id"]), bool(segment["isthing"])
        if thing:
            color = shade(class_color(category), seen.setdefault(category, 0))
            seen[category] += 1
        else:
            color = class_color(len(thing_classes or ()) + category)
        outline = (255, 255, 255) if thing else color
        hatched = bool(segment.get("iscrowd", 0))
        canvas.fill(mask, color, alpha=style.mask_alpha + 0.1, outline=outline, hatched=hatched)
        if mask.mean() >= 0.004:
            labels.append((_segment_text(segment, thing_classes if thing else stuff_classes), mask, color))
    if style.labels is not False:
        for text, mask, color in reversed(labels):
            canvas.label_at(text, inner_point(mask), color)
    return canvas.result()


def draw_dataset_dict(
    image: Any,
    record: Mapping[str, Any],
    metadata: Any,
    *,
    layer: Literal["instances", "semantic", "panoptic"] = "instances",
    style: Style | None = None,
) -> np.ndarray:
    """The ground truth of one standard dataset dict.

    Args:
        image: the picture of `record["file_name"]`, as `read_image` gives it.
        metadata: the dataset's; `thing_classes`, `stuff_classes`, keypoint names and lines are used where it has them.
        layer: objects, or the label files that `sem_seg_file_name` and `pan_seg_file_name` name.

    Raises:
        DataError: the record has no such label file, or the file cannot be read.
    """
    things, stuff = metadata.get("thing_classes"), metadata.get("stuff_classes")
    if layer == "instances":
        return draw_instances(image, record, things, skeleton=skeleton_of(metadata), style=style)
    if layer == "semantic":
        _label_file(record, "sem_seg_file_name")
        labels = LabelReader(metadata, none=_NO_CLASS).read(record)
        return draw_sem_seg(image, labels, stuff, ignore_label=_NO_CLASS, style=style)
    colors = read_image(_label_file(record, "pan_seg_file_name")).astype(np.int64)
    stuff = stuff_segment_names(things, stuff)
    return draw_panoptic(image, colors @ (1, 256, 65536), record["segments_info"], things, stuff, style=style)


def skeleton_of(metadata: Any) -> list[tuple[int, int]]:
    """Pairs of keypoint numbers from `keypoint_names` and `keypoint_connection_rules` (name, name, color)."""
    names = list(metadata.get("keypoint_names") or ())
    rules = metadata.get("keypoint_connection_rules") or ()
    return [(names.index(a), names.index(b)) for a, b, *_ in rules if a in names and b in names]


def _draw_masks(canvas: Canvas, marks: Marks, colors: list[Color], style: Style) -> None:
    """Large masks first, so that a small one inside a large one stays visible."""
    masks = [(mask, i) for i, mask in enumerate(marks.masks or ()) if mask is not None]
    for mask, i in sorted(masks, key=lambda item: -int(item[0].sum())):
        canvas.fill(mask, colors[i], alpha=style.mask_alpha, outline=colors[i], hatched=bool(marks.crowd[i]))


def _draw_keypoints(
    canvas: Canvas, points: np.ndarray, skeleton: Sequence[tuple[int, int]], color: Color, box: np.ndarray
) -> None:
    """Lines between the keypoints that are there, then dots: light if visible, dark if hidden, small on a small box."""
    side = max(box[2] - box[0], box[3] - box[1]) * canvas.scale
    size = float(np.clip(side / (50 * canvas.line_width), 0.5, 1))
    for a, b in skeleton:
        if points[a, 2] > 0 and points[b, 2] > 0:
            canvas.line(points[a, :2], points[b, :2], color)
    for point in points:
        if point[2] > 0:
            canvas.dot(point[:2], color, hollow=point[2] < 2, size=size)


def _object_colors(marks: Marks, class_names: Sequence[str] | None, style: Style) -> list[Color]:
    by = style.color_by
    if by is None:
        single = class_names is not None and len(class_names) == 1
        by = "instance" if single and marks.masks is not None else "class"
    return [class_color(i if by == "instance" else int(label)) for i, label in enumerate(marks.classes)]


def _is_labeled(canvas: Canvas, marks: Marks, i: int, class_names: Sequence[str] | None, style: Style) -> bool:
    if style.labels is not None:
        return style.labels
    if class_names is not None and len(class_names) == 1 and marks.scores is None:
        return False  # the one name says nothing
    x0, y0, x1, y1 = marks.boxes[i] * canvas.scale
    return len(marks) <= 25 or min(x1 - x0, y1 - y0) >= 1.5 * canvas.font_size


def _label_text(marks: Marks, i: int, class_names: Sequence[str] | None) -> str:
    name = class_name(int(marks.classes[i]), class_names)
    if marks.crowd[i]:
        name += " (crowd)"
    return name if marks.scores is None else f"{name} {marks.scores[i]:.2f}"


def _segment_text(segment: Mapping[str, Any], names: Sequence[str] | None) -> str:
    text = class_name(int(segment["category_id"]), names) + (" (crowd)" if segment.get("iscrowd") else "")
    score = segment.get("score")
    return text if score is None else f"{text} {float(score):.2f}"


def _label_file(record: Mapping[str, Any], key: str) -> str:
    path = record.get(key)
    if path is None:
        raise DataError(
            f"{record.get('file_name')}: its record has no {key}; the dataset was loaded without these labels"
        )
    return path
