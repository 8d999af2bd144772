"""One image and all that is drawn on it, which move together.

Pixels stay uint8 and become what torchvision's v2 kernels make of them; coordinates are float64 arrays and are mapped
exactly, see `vertebra.data.transforms.moves`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from vertebra.data.transforms.drawn import BoxesDrawn, Drawn, PointsDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, ImageDrawn, MasksDrawn
from vertebra.data.transforms.moves import Crop, Mirror, Move, Pad, Projection, QuarterTurn, Resize
from vertebra.errors import RecipeError

__all__ = ["Sample", "gray"]


class Sample:
    """An image (C, H, W) and what is drawn on it: `fields`, by name, each with the geometry that moves it.

    The first entries have attributes, each None where the sample has none, for its N instances:

    Attributes:
        image: (C, H, W) uint8, int32 (of 16 bits) or float32. Further images are fields, see `image_of`.
        highest: the value of white in it.
        boxes: (N, 4) float64, xyxy, pixels, end exclusive.
        polygons: N lists of polygons (P, 2) float64, x and y in pixels. Masks are polygons or bitmasks, not both.
        bitmasks: (N, H, W) uint8, 0 and 1.
        keypoints: (N, K, 3) float64: x, y in pixels, visibility 0 (not labeled), 1 (hidden), 2.
        keypoint_mirror: (K,) the keypoint that stands in each place after mirroring: left and right change places.
        sem_seg: (H, W), one label per pixel, of the whole image.
        ignore_label: label of `sem_seg` where padding adds pixels.
        rows: (N,) which of the instances at the start these are; crops drop some.
        matrix: (3, 3): a point (x, y, 1) of the image at the start to its place in this one.
    """

    def __init__(
        self,
        image: Tensor,
        boxes: np.ndarray | None = None,
        polygons: list[list[np.ndarray]] | None = None,
        bitmasks: Tensor | None = None,
        keypoints: np.ndarray | None = None,
        keypoint_mirror: np.ndarray | None = None,
        sem_seg: Tensor | None = None,
        ignore_label: int = 255,
        rows: np.ndarray | None = None,
        matrix: np.ndarray | None = None,
        highest: float = 255.0,
    ) -> None:
        if polygons is not None and bitmasks is not None:
            raise ValueError("masks of a Sample are polygons or bitmasks, not both")
        self.image = image
        self.fields: dict[str, Drawn] = {}
        self._ignore_label = ignore_label
        self.highest = highest
        self.matrix = np.eye(3) if matrix is None else matrix
        self._keypoint_mirror = keypoint_mirror
        self.boxes, self.polygons, self.keypoints = boxes, polygons, keypoints
        if bitmasks is not None:
            self.bitmasks = bitmasks
        self.sem_seg, self.rows = sem_seg, rows

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def count(self) -> int | None:
        """Number of instances; None without any field of theirs."""
        return next((len(field) for field in self.fields.values() if field.of_instances), None)

    def __copy__(self) -> Sample:
        copied = Sample.__new__(Sample)
        copied.__dict__ = self.__dict__ | {"fields": dict(self.fields)}
        return copied

    def __repr__(self) -> str:
        return f"Sample(image={tuple(self.image.shape)}, fields={self.fields})"

    @property
    def boxes(self) -> np.ndarray | None:
        return _values(self.fields.get("boxes"))

    @boxes.setter
    def boxes(self, boxes: np.ndarray | None) -> None:
        self._put("boxes", None if boxes is None else BoxesDrawn(boxes))

    @property
    def polygons(self) -> list[list[np.ndarray]] | None:
        masks = self.fields.get("masks")
        return masks.polygons if isinstance(masks, MasksDrawn) else None

    @polygons.setter
    def polygons(self, polygons: list[list[np.ndarray]] | None) -> None:
        if polygons is not None or self.bitmasks is None:
            self._put("masks", None if polygons is None else MasksDrawn(polygons))

    @property
    def bitmasks(self) -> Tensor | None:
        masks = self.fields.get("masks")
        return masks.bitmasks if isinstance(masks, MasksDrawn) else None

    @bitmasks.setter
    def bitmasks(self, bitmasks: Tensor | None) -> None:
        if bitmasks is not None or self.polygons is None:
            self._put("masks", None if bitmasks is None else MasksDrawn(bitmasks=bitmasks))

    @property
    def keypoints(self) -> np.ndarray | None:
        return _values(self.fields.get("keypoints"))

    @keypoints.setter
    def keypoints(self, keypoints: np.ndarray | None) -> None:
        self._put("keypoints", None if keypoints is None else PointsDrawn(keypoints, mirror=self._keypoint_mirror))

    @property
    def keypoint_mirror(self) -> np.ndarray | None:
        return self._keypoint_mirror

    @keypoint_mirror.setter
    def keypoint_mirror(self, mirror: np.ndarray | None) -> None:
        self._keypoint_mirror = mirror
        self.keypoints = self.keypoints

    @property
    def sem_seg(self) -> Tensor | None:
        return _values(self.fields.get("sem_seg"))

    @sem_seg.setter
    def sem_seg(self, labels: Tensor | None) -> None:
        self._put("sem_seg", None if labels is None else DenseMapDrawn(labels, self.ignore_label))

    @property
    def ignore_label(self) -> int:
        return self._ignore_label

    @ignore_label.setter
    def ignore_label(self, label: int) -> None:
        self._ignore_label = label
        self.sem_seg = self.sem_seg

    @property
    def rows(self) -> np.ndarray | None:
        return _values(self.fields.get("rows"))

    @rows.setter
    def rows(self, rows: np.ndarray | None) -> None:
        self._put("rows", None if rows is None else ScalarsDrawn(rows))

    def image_of(self, name: str) -> tuple[Tensor, float]:
        """The pixels (C, H, W) of `image` or a further image, and the value of white in them.

        Raises:
            RecipeError: no image has this name.
        """
        field = self.fields.get(name)
        if name == "image":
            return self.image, self.highest
        if not isinstance(field, ImageDrawn):
            names = ["image", *(key for key, value in self.fields.items() if isinstance(value, ImageDrawn))]
            raise RecipeError(f"no image is called {name!r}; there are: {', '.join(names)}")
        return field.values, field.highest

    def set_image(self, name: str, pixels: Tensor) -> None:
        """Puts other pixels of the same size in the place of those of `image_of`."""
        if name == "image":
            self.image = pixels
        else:
            field = self.fields[name]
            assert isinstance(field, ImageDrawn)
            self.fields[name] = replace(field, values=pixels)

    def move(self, move: Move, value: int = 0) -> Sample:
        """Take the image and every field along; nothing is cut at the border yet, see `clip`.

        Args:
            value: gray value 0..255 of pixels that come from outside.
        Raises:
            RecipeError: a field cannot be moved so.
        """
        self._move_fields(move, value)
        self.image = move.pixels(self.image, gray(value, self.highest, self.image), True)
        return self

    def resize(self, height: int, width: int) -> Sample:
        """Stretch to height x width pixels: bilinear with antialiasing; labels and bitmasks by the nearest pixel."""
        return self if (height, width) == self.size else self.move(Resize(self.size, (height, width)))

    def flip(self, *, horizontal: bool = False, vertical: bool = False) -> Sample:
        """Mirror. Keypoints change their names with their mirror images."""
        for wanted, axis in ((horizontal, 0), (vertical, 1)):
            if wanted:
                self.move(Mirror(self.size, axis))
        return self

    def turn(self, quarters: int) -> Sample:
        """Turn counterclockwise by quarters of a circle. No pixel is lost; odd numbers swap height and width."""
        for _ in range(quarters % 4):
            self.move(QuarterTurn(self.size))
        return self

    def crop(self, top: int, left: int, height: int, width: int, min_visible: float = 0.0) -> Sample:
        """Cut out a window that lies within the image. Boxes and polygons are cut at its border.

        An instance stays if some of its box, and more than the part `min_visible` of the box's area, is in the window.
        Keypoints outside it count as not labeled: a later padding must not bring them back.
        """
        if (top, left, height, width) == (0, 0, *self.size):
            return self
        return self.move(Crop(top, left, height, width)).clip(min_visible)

    def clip(self, min_visible: float = 0.0, min_side: float = 0.0) -> Sample:
        """Cut what is drawn at the image's border, by the rules of `crop`.

        Args:
            min_side: instances whose box has a side of no more pixels than this are dropped too.
        """
        before = self.boxes
        self.fields = {name: field.clipped(self.size) for name, field in self.fields.items()}
        if before is not None and (boxes := self.boxes) is not None:
            sides = boxes[:, 2:] - boxes[:, :2]
            self.select((_area(boxes) > min_visible * _area(before)) & (sides > min_side).all(axis=1))
        return self

    def pad(self, top: int, left: int, bottom: int, right: int, value: int = 0) -> Sample:
        """Add pixels of `value` around the image; in `sem_seg` they get `ignore_label`."""
        return self.move(Pad(self.size, top, left, bottom, right), value) if top or left or bottom or right else self

    def warp(
        self, matrix: np.ndarray, height: int, width: int, value: int = 0, min_visible: float = 0.0, min_side: float = 0
    ) -> Sample:
        """Map by a 3x3 matrix into an image of height x width pixels: bilinear; labels and bitmasks by the nearest.

        A box becomes the smallest one around its four mapped corners, cut at the border. An instance stays if more than
        the part `min_visible` of that box is in the image, each side longer than `min_side` pixels.

        Args:
            matrix: from (x, y, 1) here to there, up to a factor.
            value: gray value of pixels that come from outside; in `sem_seg` they get `ignore_label`.
        """
        return self.move(Projection(matrix, (height, width)), value).clip(min_visible, min_side)

    def lay_on(self, canvas: Sample, top: int, left: int) -> Sample:
        """Put the pixels onto a larger sample, which they must not leave, and count everything from its corner.

        The canvas takes the pixels and dense maps, and no instances; this sample keeps its instances and shares the
        canvas' pixels.
        """
        height, width = self.size
        canvas.image[:, top : top + height, left : left + width] = self.image
        for name, field in canvas.fields.items():
            drawn = self.fields.get(name)
            if isinstance(field, DenseMapDrawn) and isinstance(drawn, DenseMapDrawn):
                drawn.laid_on(field, top, left)
        down, right = canvas.size[0] - top - height, canvas.size[1] - left - width
        move = Pad(self.size, top, left, down, right)
        self.fields = {name: field for name, field in self.fields.items() if not isinstance(field, DenseMapDrawn)}
        self._move_fields(move, 0)
        self.image = canvas.image
        self.fields |= {name: field for name, field in canvas.fields.items() if isinstance(field, DenseMapDrawn)}
        return self

    def select(self, keep: np.ndarray) -> Sample:
        """Only the instances in `keep`: (N,) bool, or their row numbers."""
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        self.fields = {name: field.select(rows) if field.of_instances else field for name, field in self.fields.items()}
        return self

    def boxes_from_masks(self) -> Sample:
        """Replace each box by the smallest one around its mask; an instance whose mask is empty keeps its box."""
        if self.boxes is None:
            return self
        boxes = self.boxes.copy()
        for row in range(len(boxes)):
            if self.polygons is not None and self.polygons[row]:
                points = np.concatenate(self.polygons[row])
                boxes[row] = np.concatenate((points.min(axis=0), points.max(axis=0)))
            elif self.bitmasks is not None and self.bitmasks[row].any():
                xs, ys = self.bitmasks[row].any(dim=0).nonzero(), self.bitmasks[row].any(dim=1).nonzero()
                boxes[row] = [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1]
        self.boxes = boxes
        return self

    def _move_fields(self, move: Move, value: int) -> None:
        for name, field in self.fields.items():
            if isinstance(field, ImageDrawn):
                field = replace(field, fill=gray(value, field.highest, field.values))
            try:
                self.fields[name] = field.moved(move)
            except RecipeError as err:
                raise RecipeError(str(err) if name == "keypoints" else f"field {name}: {err}") from err
        self.matrix = move.matrix @ self.matrix

    def _put(self, name: str, field: Drawn | None) -> None:
        if field is None:
            self.fields.pop(name, None)
        else:
            self.fields[name] = field


def gray(value: float, highest: float, pixels: Tensor) -> float:
    """A gray value 0..255 in the range of these pixels."""
    scaled = value if highest == 255 else value * highest / 255
    return scaled if pixels.is_floating_point() else round(scaled)


def _values(field: Drawn | None) -> Any:
    return getattr(field, "values", None)


def _area(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy -> (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]).clip(min=0) * (boxes[:, 3] - boxes[:, 1]).clip(min=0)
