"""Ground truth for the evaluation of models: a dataset's columns, its images and its classes.

Images are numbered by rows in the order of their ids, categories by the model's class numbers, so that ids of any
kind (numbers with gaps, strings) do.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.category_ids import id_order, ids_by_class
from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.dict_columns import data_of_dicts
from vertebra_eval.coco import CocoData, GroundTruthColumns, read_coco, truth_columns
from vertebra_eval.coco.data import distinct_names
from vertebra_eval.coco.objects import object_notes
from vertebra_eval.files import write_text

__all__ = ["GroundTruth"]


def _nothing() -> CocoData:
    data = read_coco({"images": [], "categories": []})
    data.annotated = False
    return data


@dataclass
class GroundTruth:
    """N images, K classes and their annotations.

    Args:
        keys: (N) how the images are known, sorted by id.
        image_ids: (N) ids as in the dataset; 1 to N where the dataset's are missing or repeat.
        sizes: (N) (height, width) in pixels, None where unknown.
        class_names: (K) distinct names, by class number.
        category_ids: (K) the dataset's category ids, by class number.
        data: the annotations as columns; without any until they are read.
        numbers: category id of `data` -> class number.
        source: where it comes from, in words; `file` if that is a JSON file.
        ids_are_distinct: the dataset has an id for each image, and `image_ids` are those.
        notes: what had to be dropped or guessed.
    """

    keys: list[ImageKey]
    image_ids: list[Hashable]
    sizes: list[tuple[int, int] | None]
    class_names: list[str]
    category_ids: list[Hashable]
    data: CocoData = field(default_factory=_nothing)
    numbers: dict[Hashable, int] = field(default_factory=dict)
    source: str = "the dataset"
    file: Path | None = None
    keypoint_names: list[str] = field(default_factory=list)
    ids_are_distinct: bool = True
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_dataset(cls, dataset: Any) -> GroundTruth:
        """Ground truth of a dataset with `.dicts` and `.metadata`: the columns that it was read with, those of
        `metadata.json_file`, or else those of its dicts."""
        json_file = getattr(dataset.metadata, "json_file", None)
        truth = cls.without_annotations(dataset)
        if json_file and truth.ids_are_distinct:
            columns: CocoData | None = getattr(dataset, "columns", None)
            if columns is None or columns.source != str(json_file):
                columns = read_coco(json_file)
            truth._take_file(columns, Path(json_file), dataset.metadata)
        else:
            ids = None
            if not truth.ids_are_distinct:  # an image that comes twice is one
                row_of = truth.row_of
                ids = [truth.image_ids[row_of[ImageKey.of(record)]] for record in dataset.dicts]
            truth.data = data_of_dicts(dataset.dicts, len(truth.class_names), ids)
            truth.source, truth.numbers = truth.data.source, {k: k for k in range(len(truth.class_names))}
        truth.notes += truth.objects.notes
        return truth

    @classmethod
    def without_annotations(cls, dataset: Any) -> GroundTruth:
        """The images and classes of a dataset alone, which costs little."""
        headers, metadata = [_header(record) for record in dataset.dicts], dataset.metadata
        keys = [ImageKey.of(header) for header in headers]
        ids = [key.image_id for key in keys]
        distinct = None not in ids and len(set(ids)) == len(ids)
        order = sorted(range(len(ids)), key=lambda i: id_order(ids[i])) if distinct else list(range(len(ids)))
        names = list(getattr(metadata, "thing_classes", None) or [])
        mapping = getattr(metadata, "thing_dataset_id_to_contiguous_id", None) or {}
        if not names:
            names = [str(k) for k in range(max(mapping.values(), default=-1) + 1)]
        truth = cls(
            keys=[keys[i] for i in order],
            image_ids=[ids[i] for i in order] if distinct else list(range(1, len(ids) + 1)),
            sizes=[headers[i]["size"] for i in order],
            class_names=distinct_names([str(name) for name in names], lambda place: place),
            category_ids=ids_by_class(mapping, len(names)),
            keypoint_names=list(getattr(metadata, "keypoint_names", None) or []),
            ids_are_distinct=distinct,
        )
        if not distinct and ids:
            truth.notes.append(
                "image ids are missing or repeat in the dataset; images are numbered from 1 in its order"
            )
        return truth

    @property
    def annotated(self) -> bool:
        """False if the dataset has no annotations at all, not even an empty list of them."""
        return self.data.annotated

    @cached_property
    def objects(self) -> GroundTruthColumns:
        """All objects as columns, with boxes."""
        return self.columns("bbox")

    def columns(self, task: str, ignored_by: tuple[str, ...] = ("iscrowd",)) -> GroundTruthColumns:
        """The columns of one task, whose image and category numbers are rows and class numbers of this.

        Raises:
            DataError: objects that no number can be computed of.
        """
        known = (self.image_ids, self.category_ids, self.class_names)
        return truth_columns(self.data, task, *known, self.numbers, ignored_by)

    @property
    def row_of(self) -> dict[Hashable, int]:
        """Row of an image by its id, or by its whole key where ids are not the dataset's."""
        names = self.image_ids if self.ids_are_distinct else self.keys
        return {name: row for row, name in enumerate(names)}

    def rows(self, keys: Iterable[ImageKey]) -> dict[ImageKey, int]:
        """Row of each image that was predicted.

        Raises:
            DataError: an image that the dataset does not have.
        """
        keys, row_of = list(keys), self.row_of
        names = [key.image_id if self.ids_are_distinct else key for key in keys]
        unknown = [name for name in names if name not in row_of]
        if unknown:
            raise DataError(
                f"{len(unknown)} predicted images are not in {self.source}, first {unknown[0]!r}; its ids look like "
                f"{', '.join(map(repr, self.image_ids[:3]))}.\n  Evaluate on the dataset whose images the model saw"
            )
        return {key: row_of[name] for key, name in zip(keys, names, strict=True)}

    def records(self, image: int | None = None) -> list[dict]:
        """The objects as COCO's annotations, with image rows and class numbers for ids; None: of all images."""
        objects, found = self.objects, self.data.annotations
        chosen = np.arange(len(objects)) if image is None else np.flatnonzero(objects.image == image)
        records = []
        for place in chosen.tolist():
            row = int(objects.rows[place])
            record: dict[str, Any] = {
                "id": place + 1,
                "image_id": int(objects.image[place]),
                "category_id": int(objects.category[place]),
                "bbox": objects.boxes[place].tolist(),
                "area": float(objects.areas[place]),
                "iscrowd": int(objects.crowd[place]),
            }
            if found.masks.kinds[row]:
                record["segmentation"] = found.masks.segmentation(row)
            if found.has_keypoints[row]:
                points, given = found.keypoints[row], found.num_keypoints[row]
                record["keypoints"] = points.reshape(-1).tolist()
                record["num_keypoints"] = int(np.count_nonzero(points[:, 2]) if np.isnan(given) else given)
            records.append(record)
        return records

    def odd_objects(self, max_dets: int, *, must_have_keypoints: bool = False) -> list[str]:
        """Sentences on what is legal in ground truth and rarely meant, see `object_notes`."""
        objects = self.objects
        ignored = self.columns("keypoints").ignored if must_have_keypoints else objects.crowd
        notes = object_notes(
            objects.image,
            objects.category,
            objects.areas,
            objects.crowd,
            objects.boxes[:, 2] * objects.boxes[:, 3],
            lambda place: f"annotation {self.data.annotations.ids[objects.rows[place]]}",
            max_dets,
            ignored,
        )
        return [f"{self.source}: {note}" for note in notes]

    def write(self, path: Path) -> None:
        """The ground truth as a COCO JSON file, with the dataset's ids."""
        images = [
            {
                "id": image_id,
                "file_name": key.file_name or "",
                **({"height": size[0], "width": size[1]} if size else {}),
            }
            for image_id, key, size in zip(self.image_ids, self.keys, self.sizes, strict=True)
        ]
        annotations = [
            record
            | {
                "image_id": self.image_ids[record["image_id"]],
                "category_id": self.category_ids[record["category_id"]],
                "segmentation": record.get("segmentation") or [],
            }
            for record in self.records()
        ]
        extra = {"keypoints": self.keypoint_names, "skeleton": []} if self.keypoint_names else {}
        named = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": category_id, "name": name, **extra} for category_id, name in named]
        data = {"images": images, "annotations": annotations, "categories": categories}
        write_text(path, json.dumps(data, default=_plain_number))

    def _take_file(self, data: CocoData, path: Path, metadata: Any) -> None:
        """The columns of a COCO file, for the dataset's images and classes."""
        self.data, self.source, self.file = data, str(path), path
        rows = data.images.rows
        strangers = [image_id for image_id in self.image_ids if image_id not in rows]
        if strangers:
            raise DataError(
                f"{path}: {len(strangers)} of the dataset's {len(self.image_ids)} images are not in it, first "
                f"{strangers[0]!r}; its ids look like {', '.join(map(repr, list(rows)[:3]))}.\n"
                "  Let metadata.json_file name the file the dataset was read from, or leave it unset"
            )
        for place, (image_id, size) in enumerate(zip(self.image_ids, self.sizes, strict=True)):
            own = data.images.sizes[rows[image_id]]
            if size is None:
                self.sizes[place] = tuple(own.tolist()) if own[0] else None
            elif tuple(own.tolist()) != size:
                own[:] = size
        mapping = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
        if not mapping:  # as a COCO reader numbers them
            mapping = {key: number for number, key in enumerate(sorted(data.categories.rows, key=id_order))}
            self.category_ids = ids_by_class(mapping, len(self.class_names))
        self.numbers = {key: number for key, number in mapping.items() if 0 <= number < len(self.class_names)}
        known = np.zeros(len(data.categories.ids) + 1, bool)
        known[[rows for key, rows in data.categories.rows.items() if key in self.numbers]] = True
        here = np.zeros(len(data.images.ids) + 1, bool)
        here[[rows[key] for key in self.image_ids]] = True
        others = here[data.annotations.image] & (data.annotations.category >= 0) & ~known[data.annotations.category]
        if others.any():
            self.notes.append(f"{others.sum()} annotations of categories that are not evaluated were dropped")


def _header(record: dict) -> dict:
    height, width = record.get("height"), record.get("width")
    size = None if height is None or width is None else (int(height), int(width))
    return {"image_id": record.get("image_id"), "file_name": record.get("file_name"), "size": size}


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")
