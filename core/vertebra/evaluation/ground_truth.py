"""Ground truth for COCO evaluation, from the dataset's JSON file or from its dataset dicts.

Images are numbered by rows in the order of their ids, categories by the model's class numbers, so that ids of any
kind (numbers with gaps, strings) do. Annotations are COCO's: `bbox` xywh in pixels, `area`, `iscrowd`, keypoints in
pixel indices (half a pixel less than in dataset dicts, as in Detectron2).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.category_ids import id_order, ids_by_class
from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.records import area_of, from_dict, json_segmentation
from vertebra_eval.coco.read_truth import ID_0_NOTE
from vertebra_eval.coco_objects import mask_of, object_notes
from vertebra_eval.json_file import read_json

__all__ = ["GroundTruth"]


@dataclass
class GroundTruth:
    """N images, K classes and their annotations.

    Args:
        keys: (N) how the images are known, sorted by id.
        image_ids: (N) ids as in the dataset; 1 to N where the dataset's are missing or repeat.
        sizes: (N) (height, width) in pixels, None where unknown.
        class_names: (K) distinct names, by class number.
        category_ids: (K) the dataset's category ids, by class number.
        annotations: COCO annotations with `image_id` = row and `category_id` = class number.
        annotated: False if the dataset has no annotations at all, not even an empty list of them.
        source: where it comes from, in words; `file` if that is a JSON file.
        ids_are_distinct: the dataset has an id for each image, and `image_ids` are those.
        notes: what had to be dropped or guessed.
    """

    keys: list[ImageKey]
    image_ids: list[Hashable]
    sizes: list[tuple[int, int] | None]
    class_names: list[str]
    category_ids: list[Hashable]
    annotations: list[dict] = field(default_factory=list)
    annotated: bool = True
    source: str = "the dataset"
    file: Path | None = None
    keypoint_names: list[str] = field(default_factory=list)
    ids_are_distinct: bool = True
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_dataset(cls, dataset: Any) -> GroundTruth:
        """Ground truth of a dataset with `.dicts` and `.metadata`: from `metadata.json_file` if it has one."""
        json_file = getattr(dataset.metadata, "json_file", None)
        truth = cls.without_annotations(dataset)
        if json_file and truth.ids_are_distinct:
            truth._read_json(Path(json_file), dataset.metadata)
        else:
            truth._read_dicts(dataset.dicts)
        truth._finish()
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
            class_names=_distinct(names),
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

    def coco_images(self) -> list[dict]:
        """COCO's image records, with the dataset's ids."""
        return [
            {
                "id": image_id,
                "file_name": key.file_name or "",
                **({"height": size[0], "width": size[1]} if size else {}),
            }
            for image_id, key, size in zip(self.image_ids, self.keys, self.sizes, strict=True)
        ]

    def coco_categories(self) -> list[dict]:
        """COCO's category records, with the dataset's ids."""
        extra = {"keypoints": self.keypoint_names, "skeleton": []} if self.keypoint_names else {}
        named = zip(self.category_ids, self.class_names, strict=True)
        return [{"id": category_id, "name": name, **extra} for category_id, name in named]

    def odd_objects(self, max_dets: int, *, must_have_keypoints: bool = False) -> list[str]:
        """Sentences on what is legal in ground truth and rarely meant, see `object_notes`."""
        records = self.annotations
        crowd = np.array([bool(record["iscrowd"]) for record in records], bool)
        without = [must_have_keypoints and not record.get("num_keypoints") for record in records]
        notes = object_notes(
            np.array([record["image_id"] for record in records], np.int64),
            np.array([record["category_id"] for record in records], np.int64),
            np.array([record["area"] for record in records], np.float64),
            crowd,
            np.array([record["bbox"][2] * record["bbox"][3] for record in records], np.float64),
            lambda row: f"annotation {records[row]['id']}",
            max_dets,
            crowd | np.array(without, bool),
        )
        return [f"{self.source}: {note}" for note in notes]

    def write(self, path: Path) -> None:
        """The ground truth as a COCO JSON file, with the dataset's ids."""
        annotations = [
            annotation
            | {
                "image_id": self.image_ids[annotation["image_id"]],
                "category_id": self.category_ids[annotation["category_id"]],
                "segmentation": json_segmentation(annotation.get("segmentation") or []),
            }
            for annotation in self.annotations
        ]
        data = {"images": self.coco_images(), "annotations": annotations, "categories": self.coco_categories()}
        path.write_text(json.dumps(data, default=_plain_number), encoding="utf-8")

    def _read_json(self, path: Path, metadata: Any) -> None:
        """Annotations of the dataset's images and classes out of a COCO JSON file."""
        data = read_json(path)
        self.source, self.file = str(path), path
        self.annotated = "annotations" in data
        row_of = self.row_of
        in_file = {image["id"]: image for image in data.get("images", ())}
        strangers = [image_id for image_id in self.image_ids if image_id not in in_file]
        if strangers:
            raise DataError(
                f"{path}: {len(strangers)} of the dataset's {len(self.image_ids)} images are not in it, first "
                f"{strangers[0]!r}; its ids look like {', '.join(map(repr, list(in_file)[:3]))}.\n"
                "  Let metadata.json_file name the file the dataset was read from, or leave it unset"
            )
        self.sizes = [
            size or (in_file[image_id].get("height"), in_file[image_id].get("width"))
            for size, image_id in zip(self.sizes, self.image_ids, strict=True)
        ]
        categories = sorted((category["id"] for category in data.get("categories", ())), key=id_order)
        mapping = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
        if not mapping:  # as a COCO reader numbers them
            mapping = {category_id: number for number, category_id in enumerate(categories)}
            self.category_ids = ids_by_class(mapping, len(self.class_names))
        other_classes = 0
        for annotation in data.get("annotations") or ():
            row = row_of.get(annotation["image_id"])
            if row is None:
                continue
            number = mapping.get(annotation["category_id"])
            if number is None or not 0 <= number < len(self.class_names):
                other_classes += 1
                continue
            self.annotations.append(dict(annotation, image_id=row, category_id=number))
        if other_classes:
            self.notes.append(f"{other_classes} annotations of categories that are not evaluated were dropped")

    def _read_dicts(self, dicts: Iterable[dict]) -> None:
        """Annotations out of dataset dicts; ids count from 1."""
        self.source = "the dataset's dicts"
        row_of, self.annotated = self.row_of, not self.keys
        for record in dicts:
            self.annotated |= "annotations" in record
            key = ImageKey.of(record)
            row = row_of[key.image_id if self.ids_are_distinct else key]
            for index, annotation in enumerate(record.get("annotations") or ()):
                where = f"image {key.image_id!r} ({key.file_name}), annotation {index}"
                converted = from_dict(annotation, where)
                if not 0 <= converted["category_id"] < len(self.class_names):
                    raise DataError(
                        f"{where}: category_id {converted['category_id']} is not one of the {len(self.class_names)} "
                        "classes of metadata.thing_classes; dataset dicts number classes from 0"
                    )
                self.annotations.append(converted | {"image_id": row, "id": len(self.annotations) + 1})

    def _finish(self) -> None:
        """Fill what COCO's tools need and files may omit: ids, crowd flags, areas, keypoint counts."""
        ids = [annotation.get("id") for annotation in self.annotations]
        if len(set(ids)) < len(ids) or not all(isinstance(i, int) for i in ids):
            self.notes.append("annotation ids are missing or repeat; they were renumbered from 1")
            for number, annotation in enumerate(self.annotations, start=1):
                annotation["id"] = number
        elif 0 in ids:
            self.notes.append(ID_0_NOTE)
        for annotation in self.annotations:
            if "segmentation" in annotation:
                annotation["segmentation"] = mask_of(annotation["segmentation"])
            annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
            if not annotation.get("bbox"):
                raise DataError(f"{self.source}: annotation {annotation['id']} has no bbox")
            if annotation.get("area") is None:
                annotation["area"] = area_of(annotation, self.sizes[annotation["image_id"]])
            if annotation.get("keypoints") and annotation.get("num_keypoints") is None:
                annotation["num_keypoints"] = int(np.count_nonzero(np.asarray(annotation["keypoints"])[2::3]))


def _header(record: dict) -> dict:
    height, width = record.get("height"), record.get("width")
    size = None if height is None or width is None else (int(height), int(width))
    return {"image_id": record.get("image_id"), "file_name": record.get("file_name"), "size": size}


def _distinct(names: list[str]) -> list[str]:
    """Names as they are; a class number behind those that repeat."""
    return [f"{name} ({i})" if names.count(name) > 1 else str(name) for i, name in enumerate(names)]


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")
