"""One image and all that is drawn on it, with the geometry that moves them together.

Pixels stay uint8 and become what torchvision's v2 kernels make of them; coordinates are float64 arrays and are mapped
exactly: pixel (i, j) covers [j, j+1) x [i, i+1), so a box that covers the image still does after any of these. Source
of the box and point formulas: Detectron2's transforms (fvcore.transforms), whose results they equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from vertebra.data.transforms.projective import map_points, warp_pixels
from vertebra.errors import DataError
from vertebra.structures.resize import resize_pixels
from vertebra_eval.masks import clip_polygon

__all__ = ["Sample"]


@dataclass
class Sample:
    """The image (3, H, W) uint8 and, each None where the sample has none, for its N instances:"""

    image: Tensor
    boxes: np.ndarray | None = None
    """(N, 4) float64, xyxy, pixels, end exclusive."""
    polygons: list[list[np.ndarray]] | None = None
    """N lists of polygons (P, 2) float64, x and y in pixels. Masks are polygons or bitmasks, not both."""
    bitmasks: Tensor | None = None
    """(N, H, W) uint8, 0 and 1."""
    keypoints: np.ndarray | None = None
    """(N, K, 3) float64: x, y in pixels, visibility 0 (not labeled), 1 (hidden), 2."""
    keypoint_mirror: np.ndarray | None = None
    """(K,) the keypoint that stands in each place after mirroring: left and right change places."""
    sem_seg: Tensor | None = None
    """(H, W), one label per pixel, of the whole image."""
    ignore_label: int = 255
    """Label of `sem_seg` where padding adds pixels."""
    rows: np.ndarray | None = None
    """(N,) which of the instances at the start these are; crops drop some."""
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    """(3, 3): a point (x, y, 1) of the image at the start to its place in this one."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    def resize(self, height: int, width: int) -> Sample:
        """Stretch to height x width pixels: bilinear with antialiasing; labels and bitmasks by the nearest pixel."""
        old_height, old_width = self.size
        if (height, width) == (old_height, old_width):
            return self
        size = height, width
        self.image = resize_pixels(self.image, size, smooth=True)
        if self.bitmasks is not None:
            self.bitmasks = resize_pixels(self.bitmasks, size, smooth=False)
        if self.sem_seg is not None:
            self.sem_seg = resize_pixels(self.sem_seg[None], size, smooth=False)[0]
        self._map_points(np.array([width / old_width, height / old_height]), np.zeros(2))
        return self

    def flip(self, *, horizontal: bool = False, vertical: bool = False) -> Sample:
        """Mirror. Keypoints change their names with their mirror images: Detectron2 does so for horizontal flips
        only, but a vertical mirror makes a left hand a right one just as well."""
        for wanted, axis in ((horizontal, 0), (vertical, 1)):
            if not wanted:
                continue
            self._mirror(axis)
            if self.keypoints is not None:
                if self.keypoint_mirror is None:
                    raise DataError(
                        "mirroring keypoints needs to know which of them are swapped; set keypoint_names and "
                        "keypoint_flip_map (pairs of names, or []) in the dataset's metadata"
                    )
                self.keypoints = self.keypoints[:, self.keypoint_mirror]
        return self

    def turn(self, quarters: int) -> Sample:
        """Turn counterclockwise by quarters of a circle. No pixel is lost; odd numbers swap height and width."""
        for _ in range(quarters % 4):
            self._transpose()
            self._mirror(1)
        return self

    def crop(self, top: int, left: int, height: int, width: int, min_visible: float = 0.0) -> Sample:
        """Cut out a window that lies within the image. Boxes and polygons are cut at its border.

        An instance stays if some of its box, and more than the part `min_visible` of the box's area, is in the window.
        Keypoints outside it count as not labeled: a later padding must not bring them back.
        """
        if (top, left, height, width) == (0, 0, *self.size):
            return self
        window = (..., slice(top, top + height), slice(left, left + width))
        self.image = self.image[window]
        self.bitmasks = None if self.bitmasks is None else self.bitmasks[window]
        self.sem_seg = None if self.sem_seg is None else self.sem_seg[window]
        self._map_points(np.ones(2), np.array([-left, -top], float))
        return self.clip(min_visible)

    def clip(self, min_visible: float = 0.0) -> Sample:
        """Cut what is drawn at the image's border, by the rules of `crop`."""
        height, width = self.size
        if self.polygons is not None:
            cut = [[clip_polygon(polygon, width, height) for polygon in polygons] for polygons in self.polygons]
            self.polygons = [[polygon for polygon in polygons if len(polygon)] for polygons in cut]
        if self.keypoints is not None:
            x, y = self.keypoints[..., 0], self.keypoints[..., 1]
            self.keypoints[(x < 0) | (y < 0) | (x > width) | (y > height), 2] = 0
        if self.boxes is not None:
            before = _area(self.boxes)
            self.boxes = self.boxes.clip(min=0, max=[width, height, width, height])
            self.select(_area(self.boxes) > min_visible * before)
        return self

    def pad(self, top: int, left: int, bottom: int, right: int, value: int = 0) -> Sample:
        """Add pixels of `value` around the image; in `sem_seg` they get `ignore_label`."""
        if not (top or left or bottom or right):
            return self
        padding = [left, right, top, bottom]
        self.image = pad(self.image[None], padding, value=value)[0]  # of a batch, the memory layout stays
        if self.bitmasks is not None:
            self.bitmasks = pad(self.bitmasks[None], padding)[0]
        if self.sem_seg is not None:
            self.sem_seg = pad(self.sem_seg[None], padding, value=self.ignore_label)[0]
        self._map_points(np.ones(2), np.array([left, top], float))
        return self

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
        if self.keypoints is not None and np.linalg.det(matrix[:2, :2]) < 0:
            raise ValueError("warp does not mirror: keypoints would change their names; use flip")
        self.image = warp_pixels(self.image, matrix, height, width, value, smooth=True)
        if self.bitmasks is not None:
            self.bitmasks = warp_pixels(self.bitmasks, matrix, height, width, 0, smooth=False)
        if self.sem_seg is not None:
            self.sem_seg = warp_pixels(self.sem_seg[None], matrix, height, width, self.ignore_label, smooth=False)[0]
        self.matrix = matrix @ self.matrix
        if self.polygons is not None:
            self.polygons = [
                [clip_polygon(map_points(matrix, polygon), width, height) for polygon in item] for item in self.polygons
            ]
            self.polygons = [[polygon for polygon in item if len(polygon)] for item in self.polygons]
        if self.keypoints is not None:
            places = map_points(matrix, self.keypoints[..., :2])
            self.keypoints = np.concatenate((places, self.keypoints[..., 2:]), axis=-1)
            outside = (places < 0).any(axis=-1) | (places > (width, height)).any(axis=-1)
            self.keypoints[outside, 2] = 0
        if self.boxes is not None:
            corners = map_points(matrix, self.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])  # (N, 4, 2)
            mapped = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
            self.boxes = mapped.clip(min=0, max=[width, height, width, height])
            sides = self.boxes[:, 2:] - self.boxes[:, :2]
            self.select((_area(self.boxes) > min_visible * _area(mapped)) & (sides > min_side).all(axis=1))
        return self

    def lay_on(self, canvas: Sample, top: int, left: int) -> Sample:
        """Put the pixels onto a larger sample, which they must not leave, and count everything from its corner.

        The canvas takes the pixels and no instances; this sample keeps its instances and shares the canvas' pixels.
        """
        height, width = self.size
        window = (slice(top, top + height), slice(left, left + width))
        canvas.image[(slice(None), *window)] = self.image
        self.image = canvas.image
        if canvas.sem_seg is not None:
            if self.sem_seg is not None:
                canvas.sem_seg[window] = self.sem_seg
            self.sem_seg = canvas.sem_seg
        if self.bitmasks is not None:
            down, right = canvas.size[0] - top - height, canvas.size[1] - left - width
            self.bitmasks = pad(self.bitmasks[None], [left, right, top, down])[0]
        self._map_points(np.ones(2), np.array([left, top], float))
        return self

    def select(self, keep: np.ndarray) -> Sample:
        """Only the instances in `keep`: (N,) bool, or their row numbers."""
        rows = np.flatnonzero(keep) if keep.dtype == bool else keep
        self.boxes = None if self.boxes is None else self.boxes[rows]
        self.polygons = None if self.polygons is None else [self.polygons[row] for row in rows]
        self.bitmasks = None if self.bitmasks is None else self.bitmasks[torch.from_numpy(rows)]
        self.keypoints = None if self.keypoints is None else self.keypoints[rows]
        self.rows = None if self.rows is None else self.rows[rows]
        return self

    def boxes_from_masks(self) -> Sample:
        """Replace each box by the smallest one around its mask; an instance whose mask is empty keeps its box."""
        if self.boxes is None:
            return self
        for row in range(len(self.boxes)):
            if self.polygons is not None and self.polygons[row]:
                points = np.concatenate(self.polygons[row])
                self.boxes[row] = np.concatenate((points.min(axis=0), points.max(axis=0)))
            elif self.bitmasks is not None and self.bitmasks[row].any():
                xs, ys = self.bitmasks[row].any(dim=0).nonzero(), self.bitmasks[row].any(dim=1).nonzero()
                self.boxes[row] = [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1]
        return self

    def _mirror(self, axis: int) -> None:
        """Mirror along axis 0 (left and right change places) or 1 (top and bottom); keypoints keep their names."""
        dim = -2 if axis else -1
        self.image = self.image.flip(dim)
        self.bitmasks = None if self.bitmasks is None else self.bitmasks.flip(dim)
        self.sem_seg = None if self.sem_seg is None else self.sem_seg.flip(dim)
        scale, shift = np.ones(2), np.zeros(2)
        scale[axis], shift[axis] = -1.0, self.size[1 - axis]
        self._map_points(scale, shift)
        if self.boxes is not None:
            self.boxes[:, [axis, axis + 2]] = self.boxes[:, [axis + 2, axis]]

    def _transpose(self) -> None:
        """x and y change places."""
        self.image = self.image.transpose(-1, -2)
        self.bitmasks = None if self.bitmasks is None else self.bitmasks.transpose(-1, -2)
        self.sem_seg = None if self.sem_seg is None else self.sem_seg.transpose(-1, -2)
        self.matrix = self.matrix[[1, 0, 2]]
        self.boxes = None if self.boxes is None else self.boxes[:, [1, 0, 3, 2]]
        if self.polygons is not None:
            self.polygons = [[polygon[:, ::-1] for polygon in polygons] for polygons in self.polygons]
        self.keypoints = None if self.keypoints is None else self.keypoints[..., [1, 0, 2]]

    def _map_points(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Apply x' = scale * x + shift, (2,) each, to all coordinates. New arrays: the caller's are left alone."""
        self.matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]]) @ self.matrix
        if self.boxes is not None:
            self.boxes = self.boxes * np.tile(scale, 2) + np.tile(shift, 2)
        if self.polygons is not None:
            self.polygons = [[polygon * scale + shift for polygon in polygons] for polygons in self.polygons]
        if self.keypoints is not None:
            self.keypoints = np.concatenate((self.keypoints[..., :2] * scale + shift, self.keypoints[..., 2:]), axis=-1)


def _area(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy -> (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]).clip(min=0) * (boxes[:, 3] - boxes[:, 1]).clip(min=0)
