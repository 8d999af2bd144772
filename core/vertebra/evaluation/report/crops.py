"""Crops around single mistakes: ground truth beside the detections, with the place marked in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vertebra.data import read_image
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.report.mistakes import Mistake
from vertebra.evaluation.report.pictures import expected, found
from vertebra.structures import Boxes, BoxMode, Instances, segmentation_to_bitmask
from vertebra.visualize import Style, draw_instances, save_png, side_by_side
from vertebra_eval.coco import DetectionColumns
from vertebra_eval.report.blocks import Picture

__all__ = ["crop_window", "draw_mistakes"]

_SIDE = 300  # pixels of the longer side of each half
_AROUND = 0.75  # of the box's longer side is shown beyond each edge
_LEAST_AROUND = 20.0  # pixels of the original image


def draw_mistakes(
    mistakes: Sequence[Mistake],
    truth: GroundTruth,
    table: DetectionColumns,
    threshold: float,
    folder: Path,
    prefix: str,
    skeleton: Sequence[tuple[int, int]] = (),
    read: Callable[[str], np.ndarray] = read_image,
) -> list[Picture]:
    """Each mistake as a PNG `<prefix>_<number>.png` in `folder`; images whose file no longer exists are skipped.

    Args:
        threshold: score from which on detections are drawn.
        skeleton: pairs of keypoint numbers that a line joins.
        read: an image file to (H, W, 3) uint8.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{prefix}_[0-9][0-9].png"):  # of an earlier evaluation into the same folder
        old.unlink()
    rows = {mistake.image for mistake in mistakes}
    annotations = {row: truth.records(row) for row in rows}
    pictures = []
    for number, mistake in enumerate(mistakes, start=1):
        name = truth.keys[mistake.image].file_name
        if not name or not Path(name).is_file():
            continue
        image = read(name)
        window = crop_window(mistake.box, image.shape[:2])
        left = _objects(expected(annotations[mistake.image], table), image.shape[:2])
        right = found(table, mistake.image, threshold, image.shape[:2])
        view = _View(image, window)
        place = _marked(view.pixels, view.moved(mistake.box[None])[0])  # beneath all else, to hide no label
        halves = [
            draw_instances(place, view.objects(objects), truth.class_names, skeleton=skeleton, style=Style(min_side=0))
            for objects in (left, right)
        ]
        path = folder / f"{prefix}_{number:02d}.png"
        save_png(side_by_side(halves[0], halves[1], ("ground truth", "predicted")), path)
        pictures.append(Picture(path, f"{mistake.text}; {Path(name).name}"))
    return pictures


def crop_window(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of an image to show around a box, `xyxy` in whole pixels: square where the image allows it.

    Args:
        box: (4,) `xyxy` pixels, perhaps beyond the image. size: (height, width).
    """
    height, width = size
    longest = float(max(box[2] - box[0], box[3] - box[1], 1.0))
    side = longest + 2 * max(_AROUND * longest, _LEAST_AROUND)
    center = np.clip((box[:2] + box[2:]) / 2, 0, (width, height))
    spans = []
    for middle, limit in zip(center.tolist(), (width, height), strict=True):
        extent = min(round(side), limit)
        low = min(max(round(middle - extent / 2), 0), limit - extent)
        spans.append((low, low + extent))
    (x0, x1), (y0, y1) = spans
    return x0, y0, x1, y1


class _View:
    """A window of an image at the size in which it is drawn.

    Args:
        image: (H, W, 3) uint8. window: `xyxy` in whole pixels.
    """

    def __init__(self, image: np.ndarray, window: tuple[int, int, int, int]) -> None:
        self.window = window
        x0, y0, x1, y1 = window
        self.scale = _SIDE / max(x1 - x0, y1 - y0)
        self.size = max(round((x1 - x0) * self.scale), 1), max(round((y1 - y0) * self.scale), 1)  # (width, height)
        kernel = Image.Resampling.BICUBIC if self.scale > 1 else Image.Resampling.LANCZOS
        self.pixels = np.asarray(Image.fromarray(image[y0:y1, x0:x1]).resize(self.size, kernel))

    def moved(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) boxes `xyxy`, from pixels of the image to those of the view."""
        return (boxes - np.array(self.window[:2] * 2)) * self.scale

    def objects(self, whole: Instances) -> Instances:
        """The objects of the image that reach into the window, in the view's pixels."""
        prefix = "pred_" if whole.has("pred_boxes") else "gt_"
        boxes = self.moved(np.asarray(whole.get(f"{prefix}boxes").tensor, np.float64).reshape(-1, 4))
        inside = (boxes[:, :2] < np.array(self.size)).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
        keep = np.flatnonzero(inside)
        part = Instances((self.size[1], self.size[0]))
        part.set(f"{prefix}boxes", Boxes(boxes[keep]))
        for name in (f"{prefix}classes", "scores"):
            if whole.has(name):
                part.set(name, whole.get(name)[keep])
        if whole.has(f"{prefix}masks"):
            masks = whole.get(f"{prefix}masks")
            part.set(
                f"{prefix}masks", np.stack([self._mask(masks[i], whole.image_size) for i in keep]) if len(keep) else []
            )
        if whole.has(f"{prefix}keypoints"):
            points = np.array(whole.get(f"{prefix}keypoints"), np.float64)[keep]
            points[..., :2] = (points[..., :2] - np.array(self.window[:2])) * self.scale
            part.set(f"{prefix}keypoints", points)
        return part

    def _mask(self, segmentation: object, size: tuple[int, int]) -> np.ndarray:
        """(h, w) bool of one object's mask, polygons or run lengths of the whole image; empty for none."""
        if not segmentation:
            return np.zeros((self.size[1], self.size[0]), bool)
        x0, y0, x1, y1 = self.window
        crop = segmentation_to_bitmask(segmentation, *size)[y0:y1, x0:x1]
        gray = Image.fromarray(crop.astype(np.uint8) * 255).resize(self.size, Image.Resampling.BILINEAR)
        return np.asarray(gray) >= 128


def _objects(record: dict, size: tuple[int, int]) -> Instances:
    """Annotations of a dataset dict as `gt_*` fields; masks stay as they are written, crowds are ignored."""
    annotations = [a for a in record["annotations"] if not a.get("iscrowd")]
    objects = Instances(size)
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    objects.gt_boxes = Boxes(np.array(boxes, np.float64).reshape(-1, 4))
    objects.gt_classes = np.array([a["category_id"] for a in annotations], np.int64)
    if any(a.get("segmentation") for a in annotations):
        objects.gt_masks = [a.get("segmentation") for a in annotations]
    points = [a.get("keypoints") for a in annotations]
    most = max((len(p) for p in points if p), default=0)
    if most:
        flat = [p if p else [0.0] * most for p in points]
        objects.gt_keypoints = np.array(flat, np.float64).reshape(len(flat), -1, 3)
    return objects


def _marked(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Four white corners just outside a box `xyxy`, so that the eye finds it in a full picture."""
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    x0, y0, x1, y1 = np.clip(box + np.array([-5, -5, 5, 5]), 1, np.array((*drawn.size, *drawn.size)) - 2)
    arm = max(min(x1 - x0, y1 - y0) / 4, 5)
    for width, color in ((5, (0, 0, 0)), (3, (255, 255, 255))):
        for x, along in ((x0, arm), (x1, -arm)):
            for y, down in ((y0, arm), (y1, -arm)):
                pen.line([(x + along, y), (x, y), (x, y + down)], fill=color, width=width, joint="curve")
    return np.asarray(drawn)
