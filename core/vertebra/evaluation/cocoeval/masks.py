"""A column of masks: kept as they came (polygons or run lengths), encoded where an overlap asks for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.errors import DataError
from vertebra.evaluation.run_lengths import covered_pixels

__all__ = ["MaskColumn", "mask_overlaps"]


class MaskColumn(Sequence):
    """Segmentations in COCO's three forms: polygons, uncompressed and compressed run lengths.

    Args:
        segmentations: one for each row.
        sizes: (rows, 2) int height, width of each row's image; polygons need it. None: there are only run lengths.
    """

    def __init__(self, segmentations: list[Any], sizes: np.ndarray | None = None) -> None:
        self.segmentations = segmentations
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.segmentations)

    def __getitem__(self, row: int) -> dict:
        """The compressed run lengths {"size": [h, w], "counts": bytes or str} of a row."""
        segmentation = self.segmentations[row]
        if isinstance(segmentation, dict):
            if not isinstance(segmentation["counts"], list):
                return segmentation
            return coco_mask.frPyObjects(segmentation, *segmentation["size"])
        height, width = self.sizes[row]
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, int(height), int(width)))

    def boxes_and_areas(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, 4) xywh boxes around the masks, and (rows,) their pixels; both float64."""
        boxes, areas = [np.zeros((0, 4))], [np.zeros(0)]
        for start in range(0, len(self), 200):  # pycocotools 2.0.11 with numpy 2 takes no more than 255 for areas
            encoded = [self[row] for row in range(start, min(start + 200, len(self)))]
            boxes.append(coco_mask.toBbox(encoded).reshape(-1, 4))
            areas.append(coco_mask.area(encoded).astype(np.float64))
        return np.concatenate(boxes), np.concatenate(areas)

    def take(self, rows: np.ndarray) -> MaskColumn:
        """Only these rows."""
        return MaskColumn(
            [self.segmentations[row] for row in rows.tolist()], None if self.sizes is None else self.sizes[rows]
        )

    def check(self, source: str, image_ids: Sequence[Hashable]) -> None:
        """Every mask has the size of its image, as far as that is known, and run lengths that fill it.

        Args:
            image_ids: (rows,) of the images, for the message.

        Raises:
            DataError: naming the first row that has another size, or that is no mask.
        """
        for row, segmentation in enumerate(self.segmentations):
            height, width = (0, 0) if self.sizes is None else self.sizes[row].tolist()
            where = f"{source}: image {image_ids[row]!r}: the mask of row {row}"
            if isinstance(segmentation, dict):
                size = segmentation.get("size")
                if size is None or len(size) != 2 or not isinstance(segmentation.get("counts"), (str, bytes, list)):
                    raise DataError(f"{where} is no run-length mask: expected size [height, width] and counts")
                if height and list(size) != [height, width]:
                    raise DataError(f"{where} has size {list(size)} (height, width), the image [{height}, {width}]")
            elif not height:
                raise DataError(f"{where} is a polygon, which needs height and width of the image in the ground truth")
        encoded = [row for row, segmentation in enumerate(self.segmentations) if isinstance(segmentation, dict)]
        covered = covered_pixels([self.segmentations[row]["counts"] for row in encoded])
        sizes = np.array([self.segmentations[row]["size"] for row in encoded], np.int64).reshape(-1, 2).prod(axis=1)
        for number in np.flatnonzero(covered != sizes)[:1].tolist():
            row, size = encoded[number], self.segmentations[encoded[number]]["size"]
            runs = "are no run lengths" if covered[number] < 0 else f"cover {covered[number]} pixels"
            raise DataError(
                f"{source}: image {image_ids[row]!r}: the mask of row {row} is broken: its counts {runs}, "
                f"its size is {size}"
            )


def mask_overlaps(
    detected: MaskColumn,
    truth: MaskColumn,
    crowd: np.ndarray,
    truth_image: np.ndarray,
    detection_rows: np.ndarray,
    truth_rows: np.ndarray,
) -> np.ndarray:
    """(P,) mask IoU of pairs, by pycocotools' run length code; of a crowd, the part of the detection inside it.

    Args:
        crowd, truth_image: (G,) per object.
        detection_rows, truth_rows: (P,) the pairs: one image after the other, in each all objects for one detection
            after the other. So a whole image is one call.
    """
    overlaps = np.empty(len(detection_rows))
    image = truth_image[truth_rows]
    starts = np.flatnonzero(np.concatenate([[True], image[1:] != image[:-1]])) if len(image) else []
    for start, end in zip(starts, [*starts[1:], len(image)], strict=True):
        dets = detection_rows[start:end]
        num_truth = int(np.searchsorted(dets != dets[0], True)) if dets[0] != dets[-1] else len(dets)
        objects = truth_rows[start : start + num_truth].tolist()
        ious = coco_mask.iou(
            [detected[row] for row in dets[::num_truth].tolist()],
            [truth[row] for row in objects],
            crowd[objects].astype(np.uint8),
        )
        overlaps[start:end] = ious.reshape(-1)
    return overlaps
