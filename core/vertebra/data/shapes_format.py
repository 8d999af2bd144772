"""The format `shapes`: a generated dataset, made on first use, so that a recipe needs no data of its own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from iopath.common.file_io import file_lock

from vertebra.data.coco import CocoFormat
from vertebra.data.formats import Dataset, Format
from vertebra.data.shapes import write_plan
from vertebra.data.shapes_classes import shape_classes
from vertebra.data.shapes_files import MANIFEST
from vertebra.data.shapes_plan import plan_shapes
from vertebra.data.shapes_records import void_label
from vertebra.data.shapes_texture import STUFF
from vertebra.errors import DataError

__all__ = ["ShapesFormat"]


class ShapesFormat(Format):
    """A split of the dataset that `make_shapes` writes with the same arguments.

    The files go to a folder below $VERTEBRA_CACHE (default ~/.cache/vertebra) named after the arguments, and are made
    once, also when several processes ask at the same time. `data.root` plays no part.

    Args:
        images: pictures in split train.
        split: which split to load; both are written.
        val_images: pictures in split val; a fifth of `images` by default.
        seed: 0 or more.
        size: (height, width) in pixels, each a number or a (least, largest) range; or text: "128x160", "128-192".
        num_classes: up to 12 differ in outline, up to 60 also in pattern, up to 2784 also in colors.
        max_objects: most objects in a picture, besides a crowd.
        object_size: least and largest diameter of an object, as a share of the picture's shorter side.
        crowds: share of the pictures with a crowd.
        empty: share of the pictures without any object.
        labels: what to load besides boxes and masks.
        workers: processes that make the files.
    """

    def __init__(
        self,
        images: int = 600,
        split: Literal["train", "val"] = "train",
        val_images: int | None = None,
        seed: int = 0,
        size: int | str | list[int | list[int]] = (128, 160),
        num_classes: int = 3,
        max_objects: int = 6,
        object_size: list[float] = (0.2, 0.6),
        crowds: float = 0.1,
        empty: float = 0.02,
        labels: list[Literal["keypoints", "semantic", "panoptic"]] = (),
        workers: int = 1,
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"shapes: split is {split!r}, expected train or val")
        unknown = sorted(set(labels) - {"keypoints", "semantic", "panoptic"})
        if unknown:
            raise DataError(f"shapes: labels has {', '.join(unknown)}; expected keypoints, semantic, panoptic")
        self.plan = plan_shapes(images, val_images, seed, size, num_classes, max_objects, object_size, crowds, empty)
        self.split = split
        self.labels = tuple(labels)
        self.workers = workers

    @property
    def folder(self) -> Path:
        """Where the files are or will be."""
        text = json.dumps(self.plan.manifest(), sort_keys=True)
        return _cache() / f"shapes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def load(self, root: str | None = None) -> Dataset:
        """Make the files where they are missing, and read the split."""
        folder = self._made()
        kind = "keypoints" if "keypoints" in self.labels else "instances"
        arguments: dict = {}
        if "semantic" in self.labels:
            classes = [shape.name for shape in shape_classes(self.plan.num_classes)]
            arguments.update(
                sem_seg=str(folder / "semantic" / self.split),
                stuff_classes=[*classes, *STUFF],
                ignore_label=void_label(self.plan.num_classes),
            )
        if "panoptic" in self.labels:
            arguments.update(
                panoptic=str(folder / "annotations" / f"panoptic_{self.split}.json"),
                panoptic_images=str(folder / "panoptic" / self.split),
            )
        return CocoFormat(
            annotations=str(folder / "annotations" / f"{kind}_{self.split}.json"),
            images=str(folder / "images" / self.split),
            name=f"shapes/{self.split}",
            **arguments,
        ).load(None)

    def _made(self) -> Path:
        folder = self.folder
        if (folder / MANIFEST).is_file():  # no lock needed, so a cache that is read-only serves too
            return folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(folder)):
                return write_plan(folder, self.plan, self.workers)
        except OSError as err:
            raise DataError(
                f"shapes: cannot use the cache {folder.parent}: {err.strerror or err}.\n"
                "  Set VERTEBRA_CACHE to a folder that you may write to."
            ) from err


def _cache() -> Path:
    return Path(os.environ.get("VERTEBRA_CACHE") or "~/.cache/vertebra").expanduser()
