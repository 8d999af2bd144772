"""Ground truth and detections as columns: flat arrays over all images, which is what the evaluation works on.

Boxes are COCO's `xywh` in pixels. Images and categories are numbered from 0 in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from vertebra_eval.errors import DataError
from vertebra_eval.masks import MaskColumn

__all__ = ["DetectionColumns", "GroundTruthColumns", "can_be_ranked", "corners"]

_Columns = TypeVar("_Columns", "GroundTruthColumns", "DetectionColumns")


@dataclass
class GroundTruthColumns:
    """G objects on I images, in K categories. The order of an image's objects breaks ties in overlap (the later wins).

    Args:
        image, category: (G,) int, numbers of image and category.
        boxes: (G, 4) float64 xywh. For keypoints they are where detections of unlabeled objects are looked for.
        areas: (G,) float64, square pixels, as annotated; they choose the area range and scale the OKS.
        crowd: (G,) bool, takes any number of detections, each by the part of it that lies inside.
        ignored: (G,) bool, neither to be found nor to be missed; includes crowds.
        annotation_ids: (G,) int. As in pycocotools, a detection matched with the object of id 0 counts as unmatched.
        image_ids: (I,), category_ids: (K,) ids of the numbers; category_names: (K,).
        masks: of all objects, or None. keypoints: (G, J, 3) x, y, visibility, or None.
        boundaries: of the masks, which the task boundary makes.
        rows: (G,) int, numbers of the records that the objects come from; (0,) where there are none.
        image_sizes: (I, 2) int height, width, 0 where unknown; or None.
        other_image_ids, other_category_ids: known, but not evaluated; readers leave detections of them out.
        source: where the columns come from, for messages. notes: what a reader had to drop, in words.
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    annotation_ids: np.ndarray
    image_ids: Sequence[Hashable]
    category_ids: Sequence[Hashable]
    category_names: Sequence[str]
    masks: MaskColumn | None = None
    keypoints: np.ndarray | None = None
    boundaries: MaskColumn | None = None
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    image_sizes: np.ndarray | None = None
    other_image_ids: Collection[Hashable] = ()
    other_category_ids: Collection[Hashable] = ()
    source: str = "the ground truth"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = {"category": self.category, "boxes": self.boxes, "areas": self.areas, "crowd": self.crowd}
        columns |= {"ignored": self.ignored, "annotation_ids": self.annotation_ids}
        _check(self.source, self.image, columns | _optional(self))
        _check_range(self.source, "image", self.image, self.num_images)
        _check_range(self.source, "category", self.category, self.num_categories)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> GroundTruthColumns:
        """Selects objects by index or boolean mask; images and categories stay."""
        return _taken(
            self,
            rows,
            "image category boxes areas crowd ignored annotation_ids masks keypoints" + " rows" * bool(len(self.rows)),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_categories(self) -> int:
        return len(self.category_ids)


@dataclass
class DetectionColumns:
    """D detections. Their order breaks ties in score (the earlier goes first), within an image; then image order.

    Args:
        image, category: (D,) int, numbers as in the ground truth's columns.
        boxes: (D, 4) float64 xywh; (0, 4): those around the masks, made when they are needed.
        scores: (D,) float64, not NaN.
        areas: (D,) float64, square pixels: they say which area range an unmatched detection belongs to. None: those of
            the boxes, the masks, or the boxes around the keypoints, by the task.
        masks: of all detections, or None. keypoints: (D, J, 3), only x and y are read; or None.
        notes: what a reader had to drop, in words.
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray | None
    scores: np.ndarray
    masks: MaskColumn | None = None
    keypoints: np.ndarray | None = None
    boundaries: MaskColumn | None = None
    source: str = "the detections"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = {"category": self.category, "scores": self.scores}
        if self.masks is not None and len(self.boxes) < len(self.masks):
            del self.boxes
        else:
            columns["boxes"] = self.boxes
        _check(self.source, self.image, columns | _optional(self))

    def __getattr__(self, name: str) -> Any:
        """The boxes, where they were not given."""
        masks = self.__dict__.get("masks")
        if name != "boxes" or masks is None:
            raise AttributeError(f"DetectionColumns has no {name!r}")
        self.boxes = masks.boxes()
        return self.boxes

    def has_boxes(self) -> bool:
        """Whether they were given or made."""
        return "boxes" in self.__dict__

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> DetectionColumns:
        """Selects rows by index or boolean mask."""
        return _taken(self, rows, "image category boxes areas scores masks keypoints")

    @classmethod
    def joined(cls, parts: Sequence[DetectionColumns], source: str) -> DetectionColumns | None:
        """One after the other, at least one; None where their masks are polygons. All have the same columns."""
        masks = [part.masks for part in parts if part.masks is not None]
        if (joined := MaskColumn.joined(masks) if masks else None) is None and masks:
            return None

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            image=column("image"),
            category=column("category"),
            boxes=column("boxes") if parts[0].has_boxes() else np.zeros((0, 4)),
            areas=column("areas"),
            scores=column("scores"),
            masks=joined,
            keypoints=None if parts[0].keypoints is None else column("keypoints"),
            source=source,
        )

    def with_areas(self, task: str) -> DetectionColumns:
        """With areas, as a task has them, where there are none."""
        if self.areas is not None:
            return self
        if task in ("segm", "boundary") and self.masks is not None:
            areas = self.masks.areas()
        elif task == "keypoints" and self.keypoints is not None:
            areas = np.ptp(self.keypoints[..., 0], axis=1) * np.ptp(self.keypoints[..., 1], axis=1)
        else:
            areas = self.boxes[:, 2] * self.boxes[:, 3]
        return replace(self, areas=areas)

    def rows_of(self, image: int) -> slice:
        """Where the detections of one image lie, if they are in the order of the images."""
        return slice(*np.searchsorted(self.image, [image, image + 1]))


def _taken(columns: _Columns, rows: np.ndarray, names: str) -> _Columns:
    found: dict[str, Any] = {name: getattr(columns, name) for name in names.split()}
    for name, column in found.items():
        if column is not None:
            found[name] = column.take(rows) if isinstance(column, MaskColumn) else column[rows]
    return replace(columns, **found)


def can_be_ranked(scores: np.ndarray, *places: np.ndarray) -> np.ndarray:
    """(D,) bool: detections that have a rank and a place, as all evaluators and readers count them.

    Infinity is a rank, as in pycocotools: before or behind every number. NaN is none.

    Args:
        places: boxes, keypoints, areas: (D, ...) float, all of them finite.
    """
    good = ~np.isnan(scores)
    for place in places:
        good &= np.isfinite(place).all(axis=tuple(range(1, place.ndim)))
    return good


def corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) `xywh` to `xyxy`."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _optional(columns: GroundTruthColumns | DetectionColumns) -> dict:
    found = {"areas": columns.areas, "masks": columns.masks, "keypoints": columns.keypoints}
    return {name: column for name, column in found.items() if column is not None}


def _check(source: str, image: np.ndarray, columns: dict) -> None:
    wrong = {name: len(column) for name, column in columns.items() if len(column) != len(image)}
    if wrong:
        raise DataError(f"{source}: column image has {len(image)} rows, but {wrong} (name: rows); give all as many")
    boxes = columns.get("boxes")
    if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"{source}: column boxes has shape {boxes.shape}; expected (rows, 4): x, y, w, h")


def _check_range(source: str, name: str, column: np.ndarray, count: int) -> None:
    if len(column) and not (column.min() >= 0 and column.max() < count):
        wrong = column[(column < 0) | (column >= count)][0]
        raise DataError(f"{source}: column {name} has the number {wrong}; there are {count}, numbered from 0")
