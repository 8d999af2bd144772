"""A column of masks: kept as they came (polygons or run lengths), encoded where an overlap asks for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra_eval.coco_objects import polygons_cause
from vertebra_eval.errors import DataError
from vertebra_eval.run_lengths import covered_pixels

__all__ = ["MaskColumn", "mask_overlaps"]

_FARTHEST = 1e6  # pixels; pycocotools walks along every edge, and cannot count to a corner much farther away
_LISTS = (list, tuple, np.ndarray)
_AT_A_TIME = 200  # masks; pycocotools 2.0.11 with numpy 2 cannot give the areas of more than 255


class MaskColumn(Sequence):
    """Segmentations in COCO's three forms: polygons, uncompressed and compressed run lengths.

    Args:
        segmentations: one for each row.
        sizes: (rows, 2) int height, width of each row's image; polygons need it. None: there are only run lengths.
    """

    def __init__(self, segmentations: Sequence[Any], sizes: np.ndarray | None = None) -> None:
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
        for start in range(0, len(self), _AT_A_TIME):
            encoded = [self[row] for row in range(start, min(start + _AT_A_TIME, len(self)))]
            boxes.append(coco_mask.toBbox(encoded).reshape(-1, 4))
            areas.append(coco_mask.area(encoded).astype(np.float64))
        return np.concatenate(boxes), np.concatenate(areas)

    def take(self, rows: np.ndarray) -> MaskColumn:
        """Selects rows by index or boolean mask."""
        return MaskColumn(
            [self.segmentations[row] for row in rows.tolist()], None if self.sizes is None else self.sizes[rows]
        )

    def check(self, source: str, image_ids: Sequence[Hashable], rows: Sequence[int] | None = None) -> None:
        """Every mask has the size of its image, as far as that is known, and run lengths that fill it.

        Args:
            image_ids: (rows,) of the images, for the message.
            rows: (rows,) numbers of the records, for the message. None: 0, 1, 2, ...

        Raises:
            DataError: naming the first record that has a mask of another size, or something that is not a mask.
        """

        def where(row: int) -> str:
            return f"{source}: image {image_ids[row]!r}: record {row if rows is None else rows[row]}: segmentation"

        sizes = [(0, 0)] * len(self) if self.sizes is None else self.sizes.tolist()
        encoded = []
        for row, (segmentation, (height, width)) in enumerate(zip(self.segmentations, sizes, strict=True)):
            if isinstance(segmentation, dict):
                size = segmentation.get("size")
                if not _is_size(size) or not isinstance(segmentation.get("counts"), (str, bytes, list)):
                    raise DataError(f"{where(row)} is not a run-length mask: expected size [height, width] and counts")
                if height and list(size) != [height, width]:
                    raise DataError(
                        f"{where(row)} has size {list(size)} (height, width), the image [{height}, {width}]"
                    )
                encoded.append(row)
            elif not height:
                raise DataError(
                    f"{where(row)} is a polygon, which needs height and width of the image in the ground truth"
                )
            elif not _are_polygons(segmentation):
                cause = polygons_cause(segmentation) or (
                    "is not a list of polygons [x0, y0, x1, y1, x2, y2, ...], finite and in pixels"
                )
                raise DataError(f"{where(row)} {cause}: {segmentation!r:.200}")
        for start in range(0, len(encoded), _AT_A_TIME):
            part = encoded[start : start + _AT_A_TIME]
            covered = covered_pixels([self.segmentations[row]["counts"] for row in part]).tolist()
            for row, pixels in zip(part, covered, strict=True):
                height, width = self.segmentations[row]["size"]
                if pixels != height * width:
                    runs = "are not run lengths" if pixels < 0 else f"cover {pixels} pixels"
                    raise DataError(f"{where(row)} is broken: its counts {runs}, its size is [{height}, {width}]")


def _is_size(size: Any) -> bool:
    """[height, width], whole numbers from 1."""
    sides = list(size) if isinstance(size, _LISTS) else []
    return len(sides) == 2 and all(isinstance(side, (int, np.integer)) and side > 0 for side in sides)


def _are_polygons(segmentation: Any) -> bool:
    """A list of lists of numbers, two a corner. pycocotools fails where the first has only two corners."""
    if not isinstance(segmentation, list) or not segmentation:
        return False
    if not all(isinstance(polygon, _LISTS) and len(polygon) >= 4 and not len(polygon) % 2 for polygon in segmentation):
        return False
    if len(segmentation[0]) == 4:
        return False
    try:
        return all(-_FARTHEST < value < _FARTHEST for polygon in segmentation for value in polygon)
    except TypeError:
        return False


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
