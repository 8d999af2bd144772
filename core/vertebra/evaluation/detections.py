"""A model's detections as columns: taken image by image, then one table over all images.

Boxes are `xyxy` in pixels of the original image. Masks are kept run-length encoded. Predictions that are not finite
cannot be ranked or compared, so they are left out and counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from vertebra.errors import DataError

__all__ = ["DetectionTable", "Detections", "ImageDetections", "ImageKey"]


class ImageKey(NamedTuple):
    """How an image is known to dataset and loader: by its id, and where ids repeat, by its file too."""

    image_id: Hashable
    file_name: str | None

    @classmethod
    def of(cls, record: dict) -> ImageKey:
        """The key of a dataset dict or a model's input."""
        file_name = record.get("file_name")
        return cls(record.get("image_id"), None if file_name is None else str(file_name))


@dataclass
class ImageDetections:
    """The n detections of one image.

    Args:
        boxes: (n, 4) float64 `xyxy`, original image pixels.
        scores: (n,) float64.
        classes: (n,) int64, from 0.
        masks: n run-length masks {"size": [h, w], "counts": bytes}; None if the model gives none.
        keypoints: (n, K, 3) float64 x, y, score; None if the model gives none.
        dropped: how many more there were that are not finite.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[dict] | None = None
    keypoints: np.ndarray | None = None
    dropped: int = 0

    @classmethod
    def from_output(cls, record: dict, output: dict) -> ImageDetections:
        """A model's output dict to columns.

        Args:
            record: the model's input; `height` and `width` say the original size, where they are there.
            output: its `instances` have `pred_boxes`, `scores`, `pred_classes`, and may have `pred_masks` (bool
                (n, H, W), anything with such a `tensor`, or a list of run-length dicts) and `pred_keypoints`.

        Raises:
            DataError: no instances, a field missing, lengths that differ, masks not in the image's size.
        """
        where = f"the output for image {record.get('image_id', record.get('file_name'))!r}"
        if "instances" not in output:
            raise DataError(
                f"{where} has no 'instances', only {', '.join(map(repr, output)) or 'nothing'}.\n"
                "  COCOEvaluator judges instances; choose evaluators for the tasks of the model's heads"
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
                raise DataError(
                    f"{where}: pred_keypoints have shape {keypoints.shape}; expected (n, K, 3): x, y, score"
                )
        masks = _encode(instances.pred_masks, record, where) if instances.has("pred_masks") else None
        columns = [column for column in (boxes, scores, classes, masks, keypoints) if column is not None]
        if len({len(column) for column in columns}) > 1:
            raise DataError(
                f"{where}: its fields differ in length: {', '.join(str(len(column)) for column in columns)}"
            )

        good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        if keypoints is not None and keypoints.size:
            good &= np.isfinite(keypoints).all(axis=(1, 2))
        if not good.all():
            boxes, scores, classes = boxes[good], scores[good], classes[good]
            keypoints = None if keypoints is None else keypoints[good]
            masks = None if masks is None else [mask for mask, keep in zip(masks, good, strict=True) if keep]
        return cls(boxes, scores, classes, masks, keypoints, dropped=int((~good).sum()))


@dataclass
class DetectionTable:
    """D detections over all images, in the order of the images and, within one, of the model.

    Args:
        image: (D,) int64, row of the image in the ground truth's list.
        boxes: (D, 4) float64 `xyxy`; scores: (D,) float64; classes: (D,) int64.
        masks: D run-length masks, or None. keypoints: (D, K, 3) float64, or None.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[dict] | None
    keypoints: np.ndarray | None

    def __len__(self) -> int:
        return len(self.scores)

    def rows_of(self, image: int) -> slice:
        """Where the detections of one image lie."""
        return slice(*np.searchsorted(self.image, [image, image + 1]))


@dataclass
class Detections:
    """The detections of the images seen so far. An image that comes again (a sampler's padding) counts once."""

    by_image: dict[ImageKey, ImageDetections] = field(default_factory=dict)

    def add(self, key: ImageKey, detections: ImageDetections) -> None:
        self.by_image.setdefault(key, detections)

    @classmethod
    def merged(cls, shards: Iterable[Detections]) -> Detections:
        """The union over processes."""
        union = cls()
        for shard in shards:
            for key, detections in shard.by_image.items():
                union.add(key, detections)
        return union

    @property
    def dropped(self) -> tuple[int, list[ImageKey]]:
        """How many predictions were left out because they are not finite, and of which images."""
        bad = [key for key, detections in self.by_image.items() if detections.dropped]
        return sum(self.by_image[key].dropped for key in bad), bad

    def table(self, row_of: dict[ImageKey, int]) -> DetectionTable:
        """All detections in one table, images by their rows in `row_of`."""
        ordered = sorted(self.by_image, key=row_of.__getitem__)
        parts = [self.by_image[key] for key in ordered]
        counts = [len(part.scores) for part in parts]
        filled = [part for part, count in zip(parts, counts, strict=True) if count]
        has_masks = bool(filled) and all(part.masks is not None for part in filled)
        has_keypoints = bool(filled) and all(part.keypoints is not None for part in filled)
        rows = np.array([row_of[key] for key in ordered], dtype=np.int64)
        return DetectionTable(
            image=np.repeat(rows, counts),
            boxes=np.concatenate([np.zeros((0, 4)), *(part.boxes for part in filled)]),
            scores=np.concatenate([np.zeros(0), *(part.scores for part in filled)]),
            classes=np.concatenate([np.zeros(0, np.int64), *(part.classes for part in filled)]),
            masks=[mask for part in filled for mask in part.masks] if has_masks else None,
            keypoints=np.concatenate([part.keypoints for part in filled]) if has_keypoints else None,
        )


def _array(value: Any) -> np.ndarray:
    """Tensor, array, list or anything with a `tensor`, to an array on the CPU."""
    value = getattr(value, "tensor", value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _encode(masks: Any, record: dict, where: str) -> list[dict]:
    """Masks of one image to run lengths in COCO's column order."""
    if isinstance(masks, (list, tuple)) and all(isinstance(mask, dict) for mask in masks):
        encoded = [_compressed(mask) for mask in masks]
        sizes = {tuple(mask["size"]) for mask in encoded}
    else:
        array = _array(masks)
        if array.ndim != 3:
            raise DataError(f"{where}: pred_masks have shape {array.shape}; expected (n, height, width)")
        if not len(array):
            return []
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
    return encoded


def _compressed(mask: dict) -> dict:
    if isinstance(mask["counts"], list):
        return coco_mask.frPyObjects(mask, *mask["size"])
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
