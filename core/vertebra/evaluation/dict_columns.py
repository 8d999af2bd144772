"""Dataset dicts (a user's own format) as the columns that a COCO file is read to: `data_of_dicts`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.errors import DataError
from vertebra.structures import BoxMode
from vertebra_eval.coco import CocoData, read_coco

__all__ = ["data_of_dicts"]

_SAME = ("iscrowd", "difficult", "ignore", "area")  # fields that mean what they mean in COCO
_OF_IMAGES = ("file_name", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")


def data_of_dicts(dicts: Iterable[dict], num_classes: int, image_ids: Sequence[Hashable] | None = None) -> CocoData:
    """Columns of Detectron2's standard dataset dicts, with class numbers for category ids.

    Boxes become xywh, keypoints pixel indices (half a pixel less than in the dicts, as in Detectron2), an area that a
    dict does not have is that of the mask, else of the box. Annotations are numbered from 1.

    Args:
        num_classes: K; the categories have the ids 0 to K-1.
        image_ids: ids of the images, where the dicts' own are missing or repeat.

    Raises:
        DataError: names image and annotation.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    annotated = False
    for row, record in enumerate(dicts):
        key = record.get("image_id") if image_ids is None else image_ids[row]
        images.append({"id": key} | {name: record[name] for name in _OF_IMAGES if record.get(name) is not None})
        annotated |= "annotations" in record
        for index, annotation in enumerate(record.get("annotations") or ()):
            where = f"image {record.get('image_id')!r} ({record.get('file_name')}), annotation {index}"
            converted = _coco_annotation(annotation, where, num_classes)
            annotations.append(converted | {"image_id": key, "id": len(annotations) + 1})
    categories = [{"id": number, "name": str(number)} for number in range(num_classes)]
    data = read_coco({"images": images, "categories": categories, "annotations": annotations}, "the dataset's dicts")
    data.annotated = annotated or not images
    data.annotations.measure_areas()
    return data


def _coco_annotation(annotation: dict, where: str, num_classes: int) -> dict[str, Any]:
    for name in ("bbox", "category_id"):
        if annotation.get(name) is None:
            raise DataError(f"{where} has no {name}")
    number = int(annotation["category_id"])
    if not 0 <= number < num_classes:
        raise DataError(
            f"{where}: category_id {number} is not one of the {num_classes} classes of metadata.thing_classes; dataset "
            "dicts number classes from 0"
        )
    box = BoxMode.convert([float(v) for v in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    converted = {"category_id": number, "bbox": [float(v) for v in box]}
    converted |= {name: annotation[name] for name in _SAME if annotation.get(name) is not None}
    if annotation.get("segmentation") is not None:
        converted["segmentation"] = _polygons_or_run_lengths(annotation["segmentation"])
    if annotation.get("keypoints") is not None:
        points = np.asarray(annotation["keypoints"], dtype=np.float64).reshape(-1, 3) - np.array([0.5, 0.5, 0.0])
        converted["keypoints"] = points.reshape(-1).tolist()
    return converted


def _polygons_or_run_lengths(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2 and segmentation.dtype in (np.bool_, np.uint8):
        return coco_mask.encode(np.asfortranarray(segmentation, dtype=np.uint8))
    return [np.asarray(polygon, dtype=np.float64).reshape(-1).tolist() for polygon in segmentation]
