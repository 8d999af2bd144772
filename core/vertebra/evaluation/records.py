"""Annotations of dataset dicts as COCO's records, and what records need to become JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.errors import DataError
from vertebra.structures import BoxMode

__all__ = ["area_of", "from_dict", "json_segmentation", "json_text"]

_CONSTANTS = {"Infinity": "1e999", "NaN": "null"}
_TEXT_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity|NaN')


def from_dict(annotation: dict, where: str) -> dict:
    """One annotation of a dataset dict as COCO has it."""
    for name in ("bbox", "category_id"):
        if annotation.get(name) is None:
            raise DataError(f"{where} has no {name}")
    box = BoxMode.convert([float(v) for v in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    converted = {
        "bbox": [float(v) for v in box],
        "category_id": int(annotation["category_id"]),
        "iscrowd": int(annotation.get("iscrowd") or 0),
    }
    converted |= {name: 1 for name in ("difficult", "ignore") if annotation.get(name)}
    if annotation.get("segmentation") is not None and len(annotation["segmentation"]):
        converted["segmentation"] = _as_polygons_or_rle(annotation["segmentation"])
    if annotation.get("keypoints") is not None:
        flat = np.asarray(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        flat = flat - np.array([0.5, 0.5, 0.0])  # coordinates to pixel indices
        converted["keypoints"] = flat.reshape(-1).tolist()
    if annotation.get("area") is not None:
        converted["area"] = float(annotation["area"])
    return converted


def _as_polygons_or_rle(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2 and segmentation.dtype in (np.bool_, np.uint8):
        return coco_mask.encode(np.asfortranarray(segmentation, dtype=np.uint8))
    return [np.asarray(polygon, dtype=np.float64).reshape(-1).tolist() for polygon in segmentation]


def json_text(value: Any) -> str:
    """JSON that every parser accepts, on one line. JSON has neither infinity nor NaN.

    An infinite score has a rank, which has to come back: it is written 1e999, a number by JSON's grammar, which readers
    with 64 bit floats (Python's json, pycocotools, JavaScript) read as infinity. NaN becomes null.
    """
    text = json.dumps(value)
    if "Infinity" in text or "NaN" in text:
        text = _TEXT_OR_CONSTANT.sub(lambda found: _CONSTANTS.get(found[0], found[0]), text)
    return text


def json_segmentation(segmentation: Any) -> Any:
    """A segmentation whose run lengths are text."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        return {"size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii")}
    return segmentation


def area_of(annotation: dict, size: tuple[int, int] | None) -> float:
    """Pixels of the mask where there is one and the image's (height, width) is known, else of the box."""
    segmentation = annotation.get("segmentation")
    if not segmentation or size is None:
        return float(annotation["bbox"][2] * annotation["bbox"][3])
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return float(coco_mask.area(segmentation))
    encoded = coco_mask.frPyObjects(segmentation, *size)
    return float(coco_mask.area(coco_mask.merge(encoded) if isinstance(encoded, list) else encoded))
