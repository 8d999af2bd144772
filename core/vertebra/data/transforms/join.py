"""The instances of several samples in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vertebra.data.masks import decode_segmentation
from vertebra.data.transforms.sample import Sample

__all__ = ["join_instances"]


def join_instances(canvas: Sample, samples: Sequence[Sample]) -> Sample:
    """The canvas with the instances of all samples, whose coordinates count from its corner already.

    Masks stay polygons if all samples have polygons, else all become bitmasks.
    """
    canvas.matrix = samples[0].matrix
    given = [each for each in samples if each.boxes is not None]
    if not given:
        return canvas
    canvas.boxes = np.concatenate([_boxes(each) for each in given])
    canvas.rows = np.concatenate([each.rows for each in given if each.rows is not None])
    if any(each.bitmasks is not None for each in given):
        canvas.bitmasks = torch.cat([_bitmasks(each, canvas.size) for each in given])
    elif any(each.polygons is not None for each in given):
        canvas.polygons = [item for each in given for item in (each.polygons or [[] for _ in _boxes(each)])]
    count = max((each.keypoints.shape[1] for each in given if each.keypoints is not None), default=0)
    if count:
        canvas.keypoints = np.concatenate([_keypoints(each, count) for each in given])
    return canvas


def _boxes(sample: Sample) -> np.ndarray:
    assert sample.boxes is not None
    return sample.boxes


def _bitmasks(sample: Sample, size: tuple[int, int]) -> torch.Tensor:
    """(n, H, W) uint8; an instance without a mask gets an empty one."""
    if sample.bitmasks is not None:
        return sample.bitmasks
    masks = np.zeros((len(_boxes(sample)), *size), np.uint8)
    for slot, polygons in zip(masks, sample.polygons or [[] for _ in masks], strict=True):
        slot[:] = decode_segmentation([polygon.reshape(-1) for polygon in polygons], *size)
    return torch.from_numpy(masks)


def _keypoints(sample: Sample, count: int) -> np.ndarray:
    """(n, count, 3); zeros, which is not labeled, where the sample has none."""
    return np.zeros((len(_boxes(sample)), count, 3)) if sample.keypoints is None else sample.keypoints
