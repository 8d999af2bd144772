"""A model's detections as columns: taken image by image, then one table over all images.

While images come in only plain arrays and the bytes of run lengths grow, by about 50 bytes for a box, so that a large
dataset fits. Boxes are `xyxy` in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vertebra.errors import DataError
from vertebra.evaluation.growing_columns import GrowingColumn, GrowingRunLengths
from vertebra_eval.masks import MaskColumn

if TYPE_CHECKING:
    from vertebra.evaluation.image_detections import ImageDetections

__all__ = ["DetectionTable", "Detections", "ImageKey"]

_DECIMALS = 3  # of a pixel: beyond what float32 knows of coordinates


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
class DetectionTable:
    """D detections over all images, in the order of the images and, within one, of the model.

    Args:
        image: (D,) int64, row of the image in the ground truth's list.
        boxes: (D, 4) float64 `xyxy`; scores: (D,) float64; classes: (D,) int64.
        masks: D masks as run lengths, or None. keypoints: (D, K, 3) float64, or None.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: MaskColumn | None
    keypoints: np.ndarray | None

    def __len__(self) -> int:
        return len(self.scores)

    def rows_of(self, image: int) -> slice:
        """Where the detections of one image lie."""
        return slice(*np.searchsorted(self.image, [image, image + 1]))

    def coco_boxes(self, rows: slice = slice(None)) -> np.ndarray:
        """(D, 4) boxes as COCO has them, `xywh`.

        They are rounded to 1/1000 pixel, beyond what float32 knows of them: so decimals that went through a float32
        come back as they were, and a box that reaches an IoU threshold exactly still does.
        """
        boxes = self.boxes[rows]
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round(_DECIMALS)

    def coco_keypoints(self, rows: slice = slice(None)) -> np.ndarray:
        """(D, K, 3) keypoints as COCO has them: x and y as indices of pixels, not coordinates; rounded likewise."""
        return (self.keypoints[rows] - np.array([0.5, 0.5, 0.0])).round(_DECIMALS)


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

    def add(self, key: ImageKey, detections: ImageDetections) -> None:
        """Take one image.

        Raises:
            DataError: another number of keypoints than before.
        """
        if key in self.images:
            return
        self.images[key] = len(self.images)
        if detections.dropped:
            self._dropped[key] = detections.dropped
        self._counts.extend([len(detections.scores)])
        if len(detections.scores):
            columns = (detections.boxes, detections.scores, detections.classes)
            self._extend(*columns, detections.masks, detections.keypoints, key)

    @classmethod
    def merged(cls, shards: Sequence[Detections]) -> Detections:
        """The union over processes."""
        if len(shards) == 1:
            return shards[0]
        union = cls()
        for shard in shards:
            new = [key not in union.images for key in shard.images]
            counts, table = shard._counts.array(), shard.table(shard.images)
            union._dropped |= {key: count for key, count in shard._dropped.items() if key not in union.images}
            for key in shard.images:
                union.images.setdefault(key, len(union.images))
            union._counts.extend(counts[new])
            rows = np.flatnonzero(np.repeat(new, counts))
            if len(rows):
                masks = None if table.masks is None else table.masks[rows]
                keypoints = None if table.keypoints is None else table.keypoints[rows]
                columns = (table.boxes[rows], table.scores[rows], table.classes[rows])
                union._extend(*columns, masks, keypoints, next(iter(shard.images)))
        return union

    @property
    def dropped(self) -> tuple[int, list[ImageKey]]:
        """Number of predictions that were dropped for want of a rank or a place, and of which images."""
        return sum(self._dropped.values()), list(self._dropped)

    def table(self, row_of: dict[ImageKey, int]) -> DetectionTable:
        """All detections in one table, images by their rows in `row_of`."""
        rows = np.array([row_of[key] for key in self.images], dtype=np.int64)
        image = np.repeat(rows, self._counts.array())
        order: slice | np.ndarray = slice(None)  # no copy if the images came in order
        if (np.diff(rows) < 0).any():
            order = np.argsort(image, kind="stable")
        has_masks, has_keypoints = (len(image) > 0 and c is not None for c in (self._masks, self._keypoints))
        return DetectionTable(
            image=image[order],
            boxes=self._boxes.array()[order],
            scores=self._scores.array()[order],
            classes=self._classes.array()[order],
            masks=self._masks.array()[order] if has_masks else None,
            keypoints=self._keypoints.array()[order] if has_keypoints else None,
        )

    def _extend(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
        masks: Sequence[dict] | None,
        keypoints: np.ndarray | None,
        key: ImageKey,
    ) -> None:
        if keypoints is not None and self._keypoints is not None:
            if not len(self._scores):
                self._keypoints = GrowingColumn(keypoints.shape[1:])
            elif keypoints.shape[1:] != self._keypoints.row_shape:
                raise DataError(
                    f"the output for image {key.image_id!r} has {keypoints.shape[1]} keypoints for each object, "
                    f"those before had {self._keypoints.row_shape[0]}; give all objects as many"
                )
        self._boxes.extend(boxes)
        self._scores.extend(scores)
        self._classes.extend(classes)
        self._masks = _extended(self._masks, masks)
        self._keypoints = _extended(self._keypoints, keypoints)


def _extended(column: GrowingRunLengths | GrowingColumn | None, rows: Sequence | None):
    """The column with more rows; None for good once there are none."""
    if column is None or rows is None:
        return None
    column.extend(rows)
    return column
