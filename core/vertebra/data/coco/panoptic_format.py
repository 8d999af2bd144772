"""The format `coco_panoptic`: one panoptic file is the truth of every task.

Boxes and masks of things, semantic labels and panoptic segments all come from the JSON and its PNG files, so that no
instance file is needed. Format: https://cocodataset.org/#format-data, section 4.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from vertebra.data.catalog import Metadata
from vertebra.data.coco.dataset_dicts import image_dicts, kept_categories
from vertebra.data.coco.further_keys import declared_keys, tell_unused
from vertebra.data.coco.panoptic_file import add_panoptic
from vertebra.data.formats import ROOT_HINT, Dataset, Format, resolve_path
from vertebra.errors import DataError
from vertebra.structures import BoxMode
from vertebra_eval.coco.fields import box_fault
from vertebra_eval.coco.images import read_categories, read_images
from vertebra_eval.files import Problems, read_json
from vertebra_eval.panoptic.data import panoptic_categories, png_folder

__all__ = ["CocoPanopticFormat"]

logger = logging.getLogger(__name__)


class CocoPanopticFormat(Format):
    """COCO's panoptic JSON, its PNG files and the images.

    Args:
        panoptic: the JSON file, with images, annotations and categories (`isthing`).
        images: the folder that the images' file names in the JSON count from.
        panoptic_images: folder of the PNG files; by default the JSON's path without `.json`.
        labels: the semantic labels: `all`, things and then stuff, or `stuff`, with label 0 for all things.
        name: of the dataset in messages; by default the folder's and the JSON file's name.
    """

    def __init__(
        self,
        panoptic: str,
        images: str,
        *,
        panoptic_images: str | None = None,
        labels: Literal["all", "stuff"] = "all",
        name: str | None = None,
    ) -> None:
        if labels not in ("all", "stuff"):
            raise DataError(f"coco_panoptic: labels is {labels!r}, expected all or stuff")
        self.panoptic = panoptic
        self.images = images
        self.panoptic_images = panoptic_images
        self.labels = labels
        self.name = name

    def load(self, root: str | None = None) -> Dataset:
        """Read and check the JSON file; images are looked for, not opened.

        Raises:
            DataError: names the file and every faulty record (the first 20).
        """
        file = resolve_path(self.panoptic, root)
        folder = resolve_path(self.panoptic_images, root) if self.panoptic_images else png_folder(file)
        data = read_json(file, hint=ROOT_HINT)
        if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "categories")):
            raise DataError(f'{file}: a panoptic file is an object with the lists "images" and "categories"')
        return self._dataset(file, folder, resolve_path(self.images, root), data)

    def _dataset(self, file: Path, folder: Path, image_root: Path, data: dict[str, Any]) -> Dataset:
        problems = Problems(file)
        ids = {one.id for one in panoptic_categories(data["categories"], file) if one.isthing}
        things = [record for record in data["categories"] if record["id"] in ids]
        categories = kept_categories(read_categories(things), problems)
        images = read_images(self.image_records(data["images"]), None)
        records = image_dicts(images, image_root, problems, self.fields)
        tell_unused(file, images, (), self.fields)
        problems.raise_if_any()
        metadata = Metadata(self.name or f"{file.parent.name}/{file.stem}")
        metadata.set(
            thing_classes=categories.names,
            thing_dataset_id_to_contiguous_id=categories.to_contiguous,
            thing_contiguous_id_to_dataset_id={new: old for old, new in categories.to_contiguous.items()},
            image_root=str(image_root),
            ignore_label=255,
        )
        add_panoptic(file, folder, records, metadata, self.labels)
        keys = declared_keys(self.fields, of_instances=True)
        empty: list[str] = []
        for item in records.values():
            infos = [info for info in item["segments_info"] if info["isthing"]]
            item["annotations"] = [_annotation(info, keys) for info in infos if not _is_empty(info.get("bbox"))]
            empty += [item["file_name"]] * (len(infos) - len(item["annotations"]))
        if empty:
            logger.warning("%s: boxes without area, dropped: %d (first: in %s)", file, len(empty), empty[0])
        dataset = Dataset(records.values(), metadata)
        dataset.check_files()
        return dataset

    def image_records(self, images: list) -> list:
        """The JSON's image records with file names below the image folder. Override where the JSON's are others."""
        return images


def _is_empty(box: Any) -> bool:
    """A box that is one and has no area."""
    return box_fault(box) is None and min(box[2:]) == 0


def _annotation(info: dict, keys: Collection[str]) -> dict:
    return {
        **{key: info[key] for key in keys if key in info},
        "bbox": info.get("bbox"),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": info["category_id"],
        "iscrowd": int(info.get("iscrowd") or 0),
        "panoptic_id": info.get("id"),
    }
