"""Annotations of a standard dict to the arrays of a `Sample`, and those back to `Instances` after the transforms.

A `Dataset` has checked its dicts. A `Mapper` takes others too, so what would distort a sample is checked once more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from vertebra.data.masks import decode_segmentation
from vertebra.data.transforms.drawn_pixels import MasksDrawn
from vertebra.data.transforms.sample import Sample
from vertebra.errors import DataError
from vertebra.structures import BoxMode, Instances
from vertebra_eval.masks import mask_faults

__all__ = ["MaskFormat", "boxes_of", "fill_sample", "instances_of", "keypoint_mirror", "masks_of"]

MaskFormat = Literal["polygon", "bitmask", "none"]

_EMPTY = 1e-5  # a side of no more pixels than this makes a box empty, as in Detectron2


def fill_sample(sample: Sample, annotations: list[dict], where: str, masks: bool, num_keypoints: int) -> None:
    """Put boxes and, if wanted, masks and keypoints of N annotations into the sample.

    Args:
        where: the image's path, for messages.
        num_keypoints: K, or 0 to ignore keypoints; an annotation without keypoints gets K that are not labeled.
    """
    height, width = sample.size
    boxes = boxes_of(annotations, height, width, where)
    sample.boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
    sample.rows = np.arange(len(annotations))
    if masks:
        values = [item.get("segmentation") for item in annotations]
        sample.fields["masks"] = masks_of(values, sample.size, f"{where}: annotation")
    if num_keypoints:
        sample.keypoints = _keypoints(annotations, num_keypoints, where)


def masks_of(segmentations: list, size: tuple[int, int], where: str) -> MasksDrawn:
    """COCO segmentations as masks: polygons if all are polygons (or None or []), else pixels: run lengths stay exact.

    Args:
        where: what they belong to, for messages; its number is put behind it.
    """
    checked = [_segmentation(item, *size, f"{where} {i}") for i, item in enumerate(segmentations)]
    if all(isinstance(item, list) for item in checked):
        return MasksDrawn([[np.array(p, float).reshape(-1, 2) for p in item] for item in checked])
    return MasksDrawn(bitmasks=torch.from_numpy(np.stack([decode_segmentation(item, *size) for item in checked])))


def instances_of(
    sample: Sample, classes: np.ndarray, mask_format: MaskFormat, extra: Collection[str] = ()
) -> Instances:
    """The sample's N instances with `gt_boxes`, `gt_classes` and, if it has them, `gt_masks`, `gt_keypoints` and
    `gt_<name>` of further fields.

    Boxes are cut at the image's border; instances whose box or mask is empty are dropped. A keypoint outside the
    image counts as not labeled.

    Args:
        classes: (number of instances before any crop,) class of each, which `sample.rows` picks from.
        mask_format: `polygon` keeps polygons as they are, `bitmask` draws them now.
        extra: names of the further fields.
    """
    size = height, width = sample.size
    assert sample.boxes is not None
    sample.boxes = boxes = np.clip(sample.boxes, 0, np.array([width, height, width, height]))
    keep = (boxes[:, 2:] - boxes[:, :2] > _EMPTY).all(axis=1)
    for name, field in sample.fields.items() if mask_format == "bitmask" else ():
        if isinstance(field, MasksDrawn):
            sample.fields[name] = replace(field, polygons=None, bitmasks=field.drawn(size))
    masks = sample.fields.get("masks")
    if isinstance(masks, MasksDrawn):
        keep &= ~masks.empty()
    if not keep.all():
        sample.select(keep)
    result = Instances(size, gt_boxes=sample.fields["boxes"].structure(size))
    result.gt_classes = torch.from_numpy(classes[sample.rows])
    for name in ("masks", "keypoints", *extra):
        if name in sample.fields:
            result.set(f"gt_{name}", sample.fields[name].structure(size))
    return result


def boxes_of(annotations: list[dict], height: int, width: int, where: str) -> np.ndarray:
    """Boxes in whatever mode they are written to (N, 4) float64 xyxy in pixels."""
    rows = np.zeros((len(annotations), 4))
    for i, item in enumerate(annotations):
        try:
            box = np.asarray(item["bbox"], dtype=np.float64)
            mode = BoxMode(item["bbox_mode"])
        except KeyError as err:
            raise DataError(f"{where}: annotation {i} has no {err.args[0]!r}") from err
        except (TypeError, ValueError) as err:
            raise DataError(f"{where}: annotation {i}: bbox {item.get('bbox')!r:.80} cannot be read ({err})") from err
        if mode in (BoxMode.XYXY_REL, BoxMode.XYWH_REL):
            box = box * (width, height, width, height) if box.shape == (4,) else box
            mode = BoxMode.XYXY_ABS if mode == BoxMode.XYXY_REL else BoxMode.XYWH_ABS
        if mode == BoxMode.XYWHA_ABS and box.shape == (5,):
            box = BoxMode.convert(box, mode, BoxMode.XYXY_ABS)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise DataError(f"{where}: annotation {i}: bbox {item['bbox']!r:.80}, expected 4 finite numbers")
        rows[i] = box
        if mode == BoxMode.XYWH_ABS:
            rows[i, 2:] += rows[i, :2]
    return rows


def keypoint_mirror(names: Sequence[str], flip_map: Sequence[tuple[str, str]]) -> np.ndarray:
    """(K,) int64: for each keypoint the one that takes its place in a mirrored image; itself where it has no pair."""
    other = {**dict(flip_map), **{b: a for a, b in flip_map}}
    return np.array([names.index(other.get(name, name)) for name in names], dtype=np.int64)


def _segmentation(segmentation: Any, height: int, width: int, where: str) -> list | dict:
    """A checked segmentation; [] for None."""
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        return []
    if faults := mask_faults(segmentation, (height, width)):
        raise DataError(f"{where}: {faults[0]}")
    if isinstance(segmentation, dict):
        return segmentation
    return [polygon for polygon in segmentation if len(polygon) >= 6]  # two points enclose nothing


def _keypoints(annotations: list[dict], count: int, where: str) -> np.ndarray:
    """(N, K, 3) float64; zeros for annotations that have none."""
    result = np.zeros((len(annotations), count, 3))
    for i, item in enumerate(annotations):
        values = item.get("keypoints")
        if values is None:
            continue
        values = np.asarray(values, dtype=np.float64).reshape(-1)
        if values.shape != (3 * count,) or not np.isfinite(values).all():
            raise DataError(
                f"{where}: annotation {i}: {len(values)} numbers in keypoints, expected {3 * count} finite ones"
            )
        result[i] = values.reshape(count, 3)
    return result
