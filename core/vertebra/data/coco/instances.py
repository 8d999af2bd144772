"""COCO JSON to standard dataset dicts: boxes, crowd regions, masks, keypoints, panoptic and label files.

Format: https://cocodataset.org/#format-data. What is wrong in a file is an error that names the record, all faults at
once; what is merely untidy is counted and logged: boxes that reach out of their image are cut where samples are made,
boxes without area inside it are dropped.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vertebra.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from vertebra.data.coco.dataset_dicts import Categories, dataset_dicts, image_dicts, kept_categories, notes_on_objects
from vertebra.data.coco.further_keys import declared_keys, tell_unused
from vertebra.data.coco.panoptic_file import add_panoptic
from vertebra.data.extra_fields import declared_fields
from vertebra.data.formats import ROOT_HINT, Dataset, Format, resolve_path
from vertebra.errors import DataError
from vertebra_eval.coco import read_coco
from vertebra_eval.files import Problems
from vertebra_eval.panoptic.data import png_folder

__all__ = ["CocoFormat", "register_coco_instances"]

logger = logging.getLogger(__name__)


class CocoFormat(Format):
    """A COCO annotation file and a folder of images.

    Category ids may be any whole numbers or strings; classes are numbered from 0 in the order of the sorted ids. An
    annotation without `segmentation` (or with `[]`) is a box alone; without `iscrowd` it is none. Keypoints move by
    half a pixel, from COCO's pixel indices to coordinates, as in Detectron2.

    Args:
        annotations: the JSON file.
        images: the folder that the file names in the JSON count from.
        name: of the dataset in messages; by default the folder's and the JSON file's name.
        classes: only these categories, numbered in this order; annotations of others are dropped.
        sem_seg: folder of label images `<stem of the image's name>.png`, one label per pixel.
        stuff_classes: names of the labels in `sem_seg`, from 0; by default the panoptic file's stuff categories.
        ignore_label: label of pixels without a class in `sem_seg`.
        panoptic: COCO panoptic JSON for the same images.
        panoptic_images: folder of its PNG files; by default the JSON's path without `.json`.
        panoptic_labels: make the semantic labels out of `panoptic` instead of from files in `sem_seg`: `all`, things
            and then stuff, or `stuff`, where label 0 is for all things (as Panoptic FPN learns them).
        keypoint_flip_map: pairs of keypoint names that change places when the image is mirrored; by default the
            names that differ by left and right.
        missing_images: `error` if a file is not there, or `leave` it to the loader's limit on bad images.
    """

    keep_all = False
    """Whether images and annotations keep the keys that nothing declares."""

    def __init__(
        self,
        annotations: str,
        images: str,
        *,
        name: str | None = None,
        classes: list[str] | None = None,
        sem_seg: str | None = None,
        stuff_classes: list[str] | None = None,
        ignore_label: int = 255,
        panoptic: str | None = None,
        panoptic_images: str | None = None,
        panoptic_labels: Literal["all", "stuff"] | None = None,
        keypoint_flip_map: list[list[str]] | None = None,
        missing_images: Literal["error", "leave"] = "error",
    ) -> None:
        self.annotations = annotations
        self.images = images
        self.name = name
        self.classes = classes
        self.sem_seg = sem_seg
        self.stuff_classes = stuff_classes
        self.ignore_label = ignore_label
        self.panoptic = panoptic
        self.panoptic_images = panoptic_images
        self.panoptic_labels = panoptic_labels
        if panoptic_labels and (panoptic is None or sem_seg is not None or stuff_classes is not None):
            raise DataError(
                f"coco: panoptic_labels is {panoptic_labels!r}, which takes labels and their names from `panoptic`; "
                "set that, and remove sem_seg and stuff_classes"
            )
        self.keypoint_flip_map = keypoint_flip_map
        self.missing_images = missing_images

    def load(self, root: str | None = None) -> Dataset:
        """Read and check the JSON file; images are looked for, not opened.

        Raises:
            DataError: names the file and every faulty record (the first 20).
        """
        file, image_root = resolve_path(self.annotations, root), resolve_path(self.images, root)
        keep = None if self.keep_all else declared_keys(self.fields)
        data = read_coco(file, hint=ROOT_HINT, keep=keep, keep_of_images=None)
        if not data.annotated:
            raise DataError(f'{file}: root: the key "annotations" is missing; write [] for none')
        problems = Problems(file)
        annotated = {data.categories.ids[row] for row in np.unique(data.annotations.category).tolist() if row >= 0}
        categories = kept_categories(data.categories, problems, self.classes, self.keypoint_flip_map, annotated)
        problems.raise_if_any()
        records = image_dicts(data.images, image_root, problems, self.fields, self.keep_all)
        if not self.keep_all:
            tell_unused(file, data.images, data.annotations.keys, self.fields)
        notes = dataset_dicts(data, records, categories, problems, self.fields)
        problems.raise_if_any()
        metadata = self._metadata(file, image_root, categories)
        dicts = list(records.values())
        if self.sem_seg is not None:
            folder = resolve_path(self.sem_seg, root)
            for item in dicts:
                item["sem_seg_file_name"] = str(folder / f"{Path(item['file_name']).stem}.png")
        if self.panoptic is not None:
            panoptic = resolve_path(self.panoptic, root)
            folder = resolve_path(self.panoptic_images, root) if self.panoptic_images else png_folder(panoptic)
            add_panoptic(panoptic, folder, records, metadata, self.panoptic_labels)
        notes = [f"{file}: {note}" for note in (*categories.notes, *notes)]
        on_objects = [f"{file}: {note}" for note in notes_on_objects(data, categories)]
        for note in (*notes, *on_objects):
            logger.warning(note)
        for key, found in (("notes", notes), ("object_notes", on_objects)):  # an evaluator makes the latter itself
            if found:
                metadata.set(**{key: found})
        dataset = Dataset(dicts, metadata, checked=True, columns=data)
        dataset.check_files()
        return dataset

    def _metadata(self, file: Path, image_root: Path, categories: Categories) -> Metadata:
        metadata = Metadata(self.name or f"{file.parent.name}/{file.stem}")
        metadata.set(
            thing_classes=categories.names,
            thing_dataset_id_to_contiguous_id=categories.to_contiguous,
            thing_contiguous_id_to_dataset_id={new: old for old, new in categories.to_contiguous.items()},
            json_file=str(file),
            image_root=str(image_root),
            evaluator_type="coco",
        )
        if self.missing_images == "leave":
            metadata.set(missing_images="leave")
        if categories.ignored_names:
            metadata.set(dropped_classes=categories.ignored_names)
        if categories.keypoints:
            metadata.set(
                keypoint_names=categories.keypoints,
                keypoint_flip_map=categories.flip_map,
                keypoint_connection_rules=[(a, b, (102, 204, 255)) for a, b in categories.skeleton],
            )
        if self.sem_seg is not None or self.panoptic is not None:
            metadata.set(ignore_label=self.ignore_label)
        if self.stuff_classes is not None:
            metadata.set(stuff_classes=list(self.stuff_classes))
        return metadata


def register_coco_instances(name: str, metadata: dict[str, Any], json_file: str, image_root: str) -> None:
    """Detectron2's registration of one COCO file: dicts under `name` in DatasetCatalog, facts in MetadataCatalog.

    The file is read on the first `DatasetCatalog.get(name)`; its classes enter the metadata then.
    """

    def load() -> list[dict]:
        reader = CocoFormat(json_file, image_root, name=name)
        reader.fields = declared_fields(MetadataCatalog.get(name))
        reader.keep_all = True  # a recipe that names the dataset may declare fields later
        dataset = reader.load()
        facts = dataset.metadata.as_dict()
        MetadataCatalog.get(name).set(**{key: facts[key] for key in facts.keys() - {"json_file", "image_root"}})
        return list(dataset)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata)
