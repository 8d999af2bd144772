"""A model's detections as the columns that are evaluated: taken image by image, then those of all images together.

While images come in only plain arrays and the bytes of run lengths grow, by about 50 bytes for a box, so that a large
dataset fits. Boxes and keypoints become COCO's (`xywh`, pixel indices) once, when they are taken.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from vertebra.errors import DataError
from vertebra.evaluation.growing_columns import GrowingColumn, GrowingRunLengths
from vertebra_eval.coco.columns import DetectionColumns, can_be_ranked
from vertebra_eval.masks import MaskColumn

__all__ = ["Detections", "ImageKey", "columns_of_output"]

_DECIMALS = 3  # of a pixel: beyond what float32 knows of coordinates
_SOURCE = "the predictions"


class ImageKey(NamedTuple):
    """How an image is known to dataset and loader: by its id, and where ids repeat, by its file too."""

    image_id: Hashable
    file_name: str | None

    @classmethod
    def of(cls, record: Mapping) -> ImageKey:
        """The key of a dataset dict or a model's input."""
        file_name = record.get("file_name")
        return cls(record.get("image_id"), None if file_name is None else str(file_name))

    @property
    def name(self) -> str:
        """Its id; without one, the last three parts of the file's path, so that it does not depend on where the dataset
        is."""
        return str(self.image_id) if self.image_id is not None else "/".join(Path(self.file_name or "").parts[-3:])


def columns_of_output(record: dict, output: dict, row: int = 0) -> tuple[DetectionColumns, int]:
    """A model's output for one image as columns, and the number of detections that were dropped.

    Detections without a rank (a NaN score) or a place (a coordinate that is not finite) are dropped. Coordinates are
    rounded to 1/1000 pixel, beyond what float32 knows of them: so decimals that went through a float32 come back as
    they were, and a box that reaches an IoU threshold exactly still does.

    Args:
        record: the model's input; `height` and `width` say the original size, where they are there.
        output: its `instances` have `pred_boxes`, `scores`, `pred_classes`, and may have `pred_masks` (bool
            (n, H, W), anything with such a `tensor`, or a list of run-length dicts) and `pred_keypoints`.
        row: number of the image.

    Raises:
        DataError: no instances, a field missing, lengths that differ, masks not in the image's size.
    """
    where = f"the output for image {record.get('image_id', record.get('file_name'))!r}"
    if "instances" not in output:
        raise DataError(
            f"{where} has no 'instances', only {', '.join(map(repr, output)) or 'nothing'}.\n"
            "  COCOEvaluator evaluates instances; choose evaluators for the tasks of the model's heads"
        )
    instances = output["instances"]
    missing = [name for name in ("pred_boxes", "scores", "pred_classes") if not instances.has(name)]
    if missing:
        raise DataError(f"{where}: its instances have no {', '.join(missing)}; a head's predict has to set them")
    boxes = _array(instances.pred_boxes).reshape(-1, 4).astype(np.float64)
    scores = _array(instances.scores).reshape(-1).astype(np.float64)
    classes = _array(instances.pred_classes).reshape(-1).astype(np.int64)
    keypoints = None
    if instances.has("pred_keypoints"):
        keypoints = _array(instances.pred_keypoints).astype(np.float64)
        if keypoints.ndim != 3 or keypoints.shape[-1] != 3:
            raise DataError(f"{where}: pred_keypoints have shape {keypoints.shape}; expected (n, K, 3): x, y, score")
    masks = _encode(instances.pred_masks, record, where) if instances.has("pred_masks") else None
    columns = [column for column in (boxes, scores, classes, masks, keypoints) if column is not None]
    if len({len(column) for column in columns}) > 1:
        raise DataError(f"{where}: its fields differ in length: {', '.join(str(len(column)) for column in columns)}")

    good = can_be_ranked(scores, boxes, *([] if keypoints is None else [keypoints[..., :2]]))
    if keypoints is not None:
        good &= ~np.isnan(keypoints[..., 2]).any(axis=1)
        keypoints = (keypoints - np.array([0.5, 0.5, 0.0])).round(_DECIMALS)
    with np.errstate(invalid="ignore"):  # infinite corners, which are dropped
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round(_DECIMALS)
    found = DetectionColumns(
        np.full(len(scores), row, np.int64), classes, boxes, None, scores, masks, keypoints, source=_SOURCE
    )
    return (found, 0) if good.all() else (found.take(good), int((~good).sum()))


class Detections:
    """The detections of the images seen so far. An image that comes again (a sampler's padding) counts once.

    Attributes:
        images: the images in the order they came, each with its number.
    """

    def __init__(self) -> None:
        self.images: dict[ImageKey, int] = {}
        self._dropped: dict[ImageKey, int] = {}
        self._counts = GrowingColumn((), np.int64)  # detections of each image
        self._boxes = GrowingColumn((4,))
        self._scores = GrowingColumn()
        self._classes = GrowingColumn((), np.int64)
        self._masks: GrowingRunLengths | None = GrowingRunLengths()  # None: an image with detections had none
        self._keypoints: GrowingColumn | None = GrowingColumn((0, 3))

    def add(self, key: ImageKey, found: DetectionColumns, dropped: int = 0) -> None:
        """Take one image.

        Raises:
            DataError: another number of keypoints than before.
        """
        if key in self.images:
            return
        self.images[key] = len(self.images)
        if dropped:
            self._dropped[key] = dropped
        self._counts.extend([len(found)])
        if len(found):
            self._extend(found, key)

    @classmethod
    def merged(cls, shards: Sequence[Detections]) -> Detections:
        """The union over processes."""
        if len(shards) == 1:
            return shards[0]
        union = cls()
        for shard in shards:
            new = [key not in union.images for key in shard.images]
            counts, table = shard._counts.array(), shard.columns(shard.images)
            union._dropped |= {key: count for key, count in shard._dropped.items() if key not in union.images}
            for key in shard.images:
                union.images.setdefault(key, len(union.images))
            union._counts.extend(counts[new])
            rows = np.flatnonzero(np.repeat(new, counts))
            if len(rows):
                union._extend(table.take(rows), next(iter(shard.images)))
        return union

    @property
    def dropped(self) -> tuple[int, list[ImageKey]]:
        """Number of predictions that were dropped for want of a rank or a place, and of which images."""
        return sum(self._dropped.values()), list(self._dropped)

    def columns(self, row_of: Mapping[ImageKey, int]) -> DetectionColumns:
        """All detections, in the order of the images and, within one, of the model.

        Args:
            row_of: the number of each image.
        """
        rows = np.array([row_of[key] for key in self.images], dtype=np.int64)
        image = np.repeat(rows, self._counts.array())
        order: slice | np.ndarray = slice(None)  # no copy if the images came in order
        if (np.diff(rows) < 0).any():
            order = np.argsort(image, kind="stable")
        any_there = len(image) > 0
        return DetectionColumns(
            image=image[order],
            category=self._classes.array()[order],
            boxes=self._boxes.array()[order],
            areas=None,
            scores=self._scores.array()[order],
            masks=self._masks.array()[order] if any_there and self._masks is not None else None,
            keypoints=self._keypoints.array()[order] if any_there and self._keypoints is not None else None,
            source=_SOURCE,
        )

    def _extend(self, found: DetectionColumns, key: ImageKey) -> None:
        if found.keypoints is not None and self._keypoints is not None:
            if not len(self._scores):
                self._keypoints = GrowingColumn(found.keypoints.shape[1:])
            elif found.keypoints.shape[1:] != self._keypoints.row_shape:
                raise DataError(
                    f"the output for image {key.image_id!r} has {found.keypoints.shape[1]} keypoints for each object, "
                    f"those before had {self._keypoints.row_shape[0]}; give all objects as many"
                )
        self._boxes.extend(found.boxes)
        self._scores.extend(found.scores)
        self._classes.extend(found.category)
        self._masks = _extended(self._masks, found.masks)
        self._keypoints = _extended(self._keypoints, found.keypoints)


def _extended(column: Any, rows: Any) -> Any:
    """The column with more rows; None for good once there are none."""
    if column is None or rows is None:
        return None
    column.extend(rows)
    return column


def _array(value: Any) -> np.ndarray:
    """Tensor, array, list or anything with a `tensor`, to an array on the CPU."""
    value = getattr(value, "tensor", value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _encode(masks: Any, record: dict, where: str) -> MaskColumn:
    """Masks of one image to run lengths in COCO's column order."""
    if isinstance(masks, (list, tuple)) and all(isinstance(mask, dict) for mask in masks):
        encoded = [_compressed(mask) for mask in masks]
        sizes = {tuple(mask["size"]) for mask in encoded}
    else:
        array = _array(masks)
        if array.ndim != 3:
            raise DataError(f"{where}: pred_masks have shape {array.shape}; expected (n, height, width)")
        if not len(array):
            return MaskColumn.of_encoded([])
        sizes = {array.shape[1:]}
        columns = np.asfortranarray((array > 0.5 if array.dtype != bool else array).transpose(1, 2, 0), dtype=np.uint8)
        encoded = coco_mask.encode(columns)  # takes (h, w, n) in Fortran order
    wanted = (record.get("height"), record.get("width"))
    wrong = [size for size in sizes if None not in wanted and tuple(size) != wanted]
    if wrong:
        raise DataError(
            f"{where}: pred_masks have size {wrong[0]} (height, width), the original image {wanted}.\n"
            "  Masks have to be pasted into the original image's size before they are evaluated"
        )
    return MaskColumn.of_encoded(encoded)


def _compressed(mask: dict) -> dict:
    if isinstance(mask["counts"], list):
        return coco_mask.frPyObjects(mask, *mask["size"])
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
