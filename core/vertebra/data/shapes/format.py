"""The format `shapes`: a generated dataset, made on first use, so that a recipe needs no data of its own."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from iopath.common.file_io import file_lock

from vertebra.data.catalog import Metadata
from vertebra.data.coco.instances import CocoFormat
from vertebra.data.extra_fields import declared_fields
from vertebra.data.formats import Dataset, Format
from vertebra.data.shapes.files import MANIFEST, write_dataset
from vertebra.data.shapes.options import ShapesOptions, parse_size
from vertebra.data.shapes.outlines import KINDS
from vertebra.data.shapes.scene import Scene
from vertebra.data.shapes.texture import STUFF
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL
from vertebra_eval.files import read_bytes, whole_folder

__all__ = ["ShapesFormat"]

_PLAYS_NO_PART = ("options", "split", "labels", "fields")
"""Attributes that are in the manifest already, or only say what is loaded."""


class ShapesFormat(Format):
    """Generated pictures of shapes before textured backgrounds. The same arguments give the same files, byte for byte.

    The files go to a folder below $VERTEBRA_CACHE (default ~/.cache/vertebra) named after the arguments, and are made
    once, also when several processes ask at the same time. `data.root` plays no part.

    Args:
        images: pictures in split train.
        split: which split to load; both are written.
        val_images: pictures in split val; a fifth of `images` by default, at least 1.
        seed: 0 or more.
        size: [height, width] in pixels, or one number for squares; or text, also with ranges: "128x160", "128-192"
            (both sides from that range), "96-128x128-192".
        num_classes: 1 to 7: circle, square, triangle, star, cross, heart, ring.
        max_objects: most objects in a picture, besides a crowd; at most 90.
        object_size: least and largest diameter of an object, as a share of the picture's shorter side.
        crowds: share of the pictures with a crowd: many tiny objects, labeled as one group.
        empty: share of the pictures without any object.
        labels: what to load besides boxes and masks.

    A subclass that overrides `extend` gives the pictures more: other or further images, fields of the annotations. Its
    files lie in a folder of their own, for each version of its code and each value of its attributes.
    """

    extra_fields: Mapping[str, Mapping[str, Any]] = {}
    """Fields that `extend` fills, as `data.fields` declares them: {"depth": {"geometry": "dense_map"}}."""

    def __init__(
        self,
        images: int = 600,
        split: Literal["train", "val"] = "train",
        val_images: int | None = None,
        seed: int = 0,
        size: int | str | Sequence[int] = (128, 160),
        num_classes: int = 3,
        max_objects: int = 6,
        object_size: Sequence[float] = (0.2, 0.6),
        crowds: float = 0.1,
        empty: float = 0.02,
        labels: Sequence[Literal["keypoints", "semantic", "panoptic"]] = (),
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"shapes: split is {split!r}, expected train or val")
        unknown = sorted(set(labels) - {"keypoints", "semantic", "panoptic"})
        if unknown:
            raise DataError(f"shapes: labels has {', '.join(unknown)}; expected keypoints, semantic, panoptic")
        if val_images is None:
            val_images = max(images // 5, 1)
        height, width = parse_size(size)
        diameters = (float(object_size[0]), float(object_size[-1]))
        self.options = ShapesOptions(
            images, val_images, seed, height, width, num_classes, max_objects, diameters, crowds, empty
        )
        self.split = split
        self.labels = tuple(labels)

    def extend(
        self,
        folder: Path,
        image: dict[str, Any],
        annotations: list[dict[str, Any]],
        scene: Scene,
        rng: np.random.Generator,
    ) -> None:
        """Override to add files and fields to a picture while the dataset is written.

        Args:
            folder: holds the pictures of the split; write further files here, and name them in `image` relative to it.
            image: COCO's record of the image, to be changed in place. Another `file_name` replaces the picture.
            annotations: COCO's records, one for each of `scene.things`, to be changed in place.
            scene: the pixels, and the objects with their outlines and masks.
            rng: the same for this picture in every run.
        """

    def _manifest(self) -> dict[str, Any]:
        """Plain data that is equal for datasets with equal files."""
        facts = self.options.manifest()
        kind = type(self)
        if kind.extend is ShapesFormat.extend:
            return facts
        settings = {key: repr(value) for key, value in vars(self).items() if key not in _PLAYS_NO_PART}
        try:
            code = read_bytes(inspect.getfile(kind))
        except TypeError:  # of a notebook's cell
            code = inspect.getsource(kind.extend).encode()
        return facts | {"extension": kind.__qualname__, "code": hashlib.sha256(code).hexdigest(), "settings": settings}

    @property
    def folder(self) -> Path:
        """Where the files are or will be."""
        text = json.dumps(self._manifest(), sort_keys=True)
        cache = Path(os.environ.get("VERTEBRA_CACHE") or "~/.cache/vertebra").expanduser()
        return cache / f"shapes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def load(self, root: str | None = None) -> Dataset:
        """Make the files where they are missing, and read the split."""
        folder = self._made()
        kind = "keypoints" if "keypoints" in self.labels else "instances"
        arguments: dict[str, Any] = {}
        if "semantic" in self.labels:
            arguments.update(
                sem_seg=str(folder / "semantic" / self.split),
                stuff_classes=[*KINDS[: self.options.num_classes], *STUFF],
                ignore_label=IGNORED_LABEL,
            )
        if "panoptic" in self.labels:
            arguments.update(
                panoptic=str(folder / "annotations" / f"panoptic_{self.split}.json"),
                panoptic_images=str(folder / "panoptic" / self.split),
            )
        reader = CocoFormat(
            annotations=str(folder / "annotations" / f"{kind}_{self.split}.json"),
            images=str(folder / "images" / self.split),
            name=f"shapes/{self.split}",
            **arguments,
        )
        declared = Metadata("shapes").set(extra_fields=dict(self.extra_fields))
        reader.fields = {**declared_fields(declared), **self.fields}
        dataset = reader.load(None)
        if self.extra_fields:
            dataset.metadata.set(extra_fields=dict(self.extra_fields))
        return dataset

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write both splits into a new or empty folder, all of it or nothing; missing parents are made.

        Raises:
            DataError: the folder holds something, or the disk cannot be written.
        """
        target = Path(folder).expanduser().absolute()
        try:
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                what = "holds other files" if target.is_dir() else "is a file"
                raise DataError(f"shapes: {target} {what}; name a new or empty folder")
            with whole_folder(target) as draft:
                extended = type(self).extend is not ShapesFormat.extend
                write_dataset(draft, self.options, self.extend if extended else None, self._manifest())
        except OSError as err:
            place = f" ({err.filename})" if err.filename else ""
            raise DataError(
                f"shapes: cannot write {target}: {err.strerror or err}{place}.\n"
                "  Free some space, or choose a folder that you may write to. Nothing was left behind."
            ) from err

    def _made(self) -> Path:
        folder = self.folder
        if (folder / MANIFEST).is_file():  # no lock needed, so a cache that is read-only serves too
            return folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(folder)):
                if not (folder / MANIFEST).is_file():  # another process may have been first
                    self.write(folder)
        except OSError as err:
            raise DataError(
                f"shapes: cannot use the cache {folder.parent}: {err.strerror or err}.\n"
                "  Set VERTEBRA_CACHE to a folder that you may write to."
            ) from err
        return folder
