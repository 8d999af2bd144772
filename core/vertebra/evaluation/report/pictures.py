"""Pictures of predictions beside ground truth, for a few images that are the same at every evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vertebra.data import read_image
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.structures import Boxes, BoxMode, Instances
from vertebra.visualize import draw_instances, save_png, side_by_side
from vertebra_eval.coco.columns import DetectionColumns, corners
from vertebra_eval.coco.matches import Matches
from vertebra_eval.report.blocks import Picture

__all__ = ["choose_images", "draw_pictures", "expected", "found"]

_WIDEST = 2400  # pixels of a written picture; both halves together


def choose_images(errors: np.ndarray, count: int) -> list[int]:
    """Rows of at most `count` images: half of them those with the most errors, the others spread over the dataset.

    Args:
        errors: (N,) number of errors of each image; the choice is a function of it alone.
    """
    count = min(count, len(errors))
    worst = [int(row) for row in np.argsort(-errors, kind="stable")[: math.ceil(count / 2)] if errors[row] > 0]
    others = np.setdiff1d(np.arange(len(errors)), worst)
    spread = others[np.linspace(0, len(others) - 1, count - len(worst)).round().astype(int)] if len(others) else others
    return worst + [int(row) for row in dict.fromkeys(spread.tolist())]


def draw_pictures(
    truth: GroundTruth,
    table: DetectionColumns,
    matches: Matches | None,
    threshold: float,
    folder: Path,
    count: int,
    skeleton: Sequence[tuple[int, int]] = (),
    read: Callable[[str], np.ndarray] = read_image,
) -> list[Picture]:
    """Draw ground truth (left) and the detections from `threshold` on (right); images whose file no longer exists are
    skipped.

    Args:
        matches: of the detections, for the choice and the captions; None without ground truth.
        threshold: score from which on detections are drawn and judged.
        skeleton: pairs of keypoint numbers that a line joins.
    """
    size = len(truth.keys)
    nothing = np.zeros(size, np.int64)
    false, missed = (nothing, nothing) if matches is None else matches.errors_by_image(matches.half, threshold)
    pictures = []
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]_*.png"):  # of an earlier evaluation into the same folder
        old.unlink()
    for number, row in enumerate(choose_images(false + missed, count), start=1):
        name = truth.keys[row].file_name
        if not name or not Path(name).is_file():
            continue
        image = read(name)
        annotations = truth.records(row)
        detected = found(table, row, threshold, image.shape[:2])
        left = draw_instances(image, expected(annotations, table), truth.class_names, skeleton=skeleton)
        right = draw_instances(image, detected, truth.class_names, skeleton=skeleton)
        titles = (f"ground truth: {len(annotations)}", f"predicted (score >= {threshold:.2f}): {len(detected)}")
        drawn = side_by_side(left, right, titles)
        path = folder / f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(name).stem)[:60]}.png"
        _save(drawn, path)
        pictures.append(Picture(path, _caption(Path(name).name, matches, row, int(false[row]), int(missed[row]))))
    return pictures


def _caption(name: str, matches: Matches | None, row: int, false: int, missed: int) -> str:
    if matches is None:
        return name
    objects = int(((matches.objects.image == row) & ~matches.object_ignored).sum())
    return f"{name}: {objects - missed} of {objects} found, {false} false"


def expected(annotations: list[dict], table: DetectionColumns) -> dict:
    """Ground truth of one image as a dataset dict, with masks and keypoints only where the detections have them too."""
    without = [
        name for name, column in (("segmentation", table.masks), ("keypoints", table.keypoints)) if column is None
    ]
    return {
        "annotations": [
            {name: value for name, value in (annotation | _as_in_dicts(annotation)).items() if name not in without}
            for annotation in annotations
        ]
    }


def _as_in_dicts(annotation: dict) -> dict:
    fields: dict = {"bbox_mode": BoxMode.XYWH_ABS}
    if annotation.get("keypoints"):
        points = np.reshape(annotation["keypoints"], (-1, 3)) + np.array(
            [0.5, 0.5, 0]
        )  # COCO's pixel indices to coordinates
        fields["keypoints"] = points.reshape(-1).tolist()
    return fields


def found(table: DetectionColumns, row: int, threshold: float, size: tuple[int, int]) -> Instances:
    """Detections of one image from `threshold` on; `size` is (height, width)."""
    rows = np.arange(len(table))[table.rows_of(row)]
    rows = rows[table.scores[rows] >= threshold]
    detected = Instances(size)
    detected.pred_boxes = Boxes(corners(table.boxes[rows]))
    detected.scores = torch.from_numpy(table.scores[rows])
    detected.pred_classes = torch.from_numpy(table.category[rows])
    if table.masks is not None:
        detected.pred_masks = [table.masks[i] for i in rows]
    if table.keypoints is not None:
        detected.pred_keypoints = torch.from_numpy(table.keypoints[rows] + np.array([0.5, 0.5, 0.0]))
    return detected


def _save(drawn: np.ndarray, path: Path) -> None:
    height, width = drawn.shape[:2]
    if width > _WIDEST:
        smaller = Image.fromarray(drawn).resize(
            (_WIDEST, max(1, round(height * _WIDEST / width))), Image.Resampling.LANCZOS
        )
        drawn = np.asarray(smaller)
    save_png(drawn, path)
