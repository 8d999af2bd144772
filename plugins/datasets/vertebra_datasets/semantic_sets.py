"""Formats of public datasets with a label for each pixel, in the folders in which they are distributed.

What their label files hold is looked up while reading; no file is converted or changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vertebra.data import (
    Dataset,
    Format,
    Problems,
    SemanticClasses,
    pair_files,
    read_names,
    records_of,
    resolve_path,
)
from vertebra.errors import DataError
from vertebra.files import read_text
from vertebra.structures import IGNORED_LABEL
from vertebra_datasets.class_names import ADE20K, CITYSCAPES, COCO_STUFF, PET_BREEDS, VOC

__all__ = ["ADE20KFormat", "CityscapesFormat", "CocoStuffFormat", "OxfordPetsFormat", "VOCSegmentationFormat"]


class CityscapesFormat(Format):
    """Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    The 34 numbers of labelIds become the 19 train ids; the others are ignored, as in the benchmark.

    Args:
        split: train, val or test (whose label files are dummies).
    """

    def __init__(self, split: Literal["train", "val", "test"] = "train") -> None:
        self.split = split

    def load(self, root: str | None = None) -> Dataset:
        pairs = pair_files(
            resolve_path(f"leftImg8bit/{self.split}", root),
            resolve_path(f"gtFine/{self.split}", root),
            image_ending="_leftImg8bit",
            mask_ending="_gtFine_labelIds",
        )
        label_map = dict.fromkeys(range(34), IGNORED_LABEL)
        label_map |= {number: train_id for train_id, (number, _) in enumerate(CITYSCAPES.values())}
        colors = tuple(color for _, color in CITYSCAPES.values())
        classes = SemanticClasses(tuple(CITYSCAPES), colors, label_map=label_map)
        return Dataset(records_of(pairs), classes.metadata(f"cityscapes/{self.split}"))


class ADE20KFormat(Format):
    """ADE20K's scene parsing challenge: `images/<split>/*.jpg` and `annotations/<split>/*.png`.

    0, which means something else than the 150 classes, is ignored; 1 to 150 become 0 to 149.

    Args:
        split: training or validation.
    """

    def __init__(self, split: Literal["training", "validation"] = "training") -> None:
        self.split = split

    def load(self, root: str | None = None) -> Dataset:
        pairs = pair_files(resolve_path(f"images/{self.split}", root), resolve_path(f"annotations/{self.split}", root))
        label_map = {0: IGNORED_LABEL} | {number + 1: number for number in range(len(ADE20K))}
        return Dataset(records_of(pairs), SemanticClasses(ADE20K, label_map=label_map).metadata(f"ade20k/{self.split}"))


class VOCSegmentationFormat(Format):
    """Pascal VOC: `JPEGImages/*.jpg` and `SegmentationClass/*.png` of the images that a list names.

    The label files have palettes; their indices are the classes, 0 the background, and 255 is ignored.

    Args:
        split: name of the list in `ImageSets/Segmentation`, without .txt.
        masks: folder of label files; for the 10,582 images of SBD the one that holds theirs, as `SegmentationClassAug`.
    """

    def __init__(self, split: str = "train", masks: str = "SegmentationClass") -> None:
        self.split = split
        self.masks = masks

    def load(self, root: str | None = None) -> Dataset:
        names = read_names(resolve_path(f"ImageSets/Segmentation/{self.split}.txt", root))
        pairs = pair_files(resolve_path("JPEGImages", root), resolve_path(self.masks, root), names=names)
        return Dataset(records_of(pairs), SemanticClasses(VOC).metadata(f"voc/{self.split}"))


class CocoStuffFormat(Format):
    """COCO-Stuff: COCO's images with `stuffthingmaps`, one PNG each, 80 classes of things and 91 of stuff.

    Label files hold 0 to 181 with 11 gaps, which become 0 to 170 without; 255 is ignored.

    Args:
        split: train2017 or val2017: both folders are named so.
        images: the folder that holds the folder of images, below data.root.
        masks: the same for label files.
    """

    def __init__(
        self, split: Literal["train2017", "val2017"] = "train2017", images: str = ".", masks: str = "stuffthingmaps"
    ) -> None:
        self.split = split
        self.images = images
        self.masks = masks

    def load(self, root: str | None = None) -> Dataset:
        pairs = pair_files(resolve_path(self.images, root) / self.split, resolve_path(self.masks, root) / self.split)
        numbers = [number for number, name in enumerate(COCO_STUFF) if name != "-"]
        classes = SemanticClasses(
            tuple(COCO_STUFF[number] for number in numbers),
            label_map={number: label for label, number in enumerate(numbers)},
        )
        return Dataset(records_of(pairs), classes.metadata(f"coco_stuff/{self.split}"))


class OxfordPetsFormat(Format):
    """Oxford-IIIT Pet: `images/*.jpg`, `annotations/trimaps/*.png` and the lists in `annotations`.

    Args:
        split: trainval or test, or another list in `annotations` with name, breed from 1, and so on in each line.
        labels: `breeds`: background and 37 breeds, the animal's border ignored; `trimap`: pet, background, border.
    """

    def __init__(self, split: str = "trainval", labels: Literal["breeds", "trimap"] = "breeds") -> None:
        if labels not in ("breeds", "trimap"):
            raise DataError(f"oxford_pets: labels is {labels!r}, expected breeds or trimap")
        self.split = split
        self.labels = labels

    def load(self, root: str | None = None) -> Dataset:
        file = resolve_path(f"annotations/{self.split}.txt", root)
        names, trimaps = read_names(file), resolve_path("annotations/trimaps", root)
        records = records_of(pair_files(resolve_path("images", root), trimaps, names=names))
        name = f"oxford_pets_{self.labels}/{self.split}"
        if self.labels == "trimap":
            classes = SemanticClasses(("pet", "background", "border"), label_map={1: 0, 2: 1, 3: 2})
            return Dataset(records, classes.metadata(name))
        breeds = _breeds(file)
        for record in records:  # what the animal's pixels are depends on the image
            record["sem_seg_label_map"] = {1: breeds[record["image_id"]], 2: 0, 3: IGNORED_LABEL}
        return Dataset(records, SemanticClasses(("background", *PET_BREEDS)).metadata(name))


def _breeds(file: Path) -> dict[str, int]:
    """{image: breed from 1} of a list of Oxford-IIIT Pet."""
    found, problems = {}, Problems(file)
    for line in read_text(file, "utf-8-sig").splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) < 2 or not words[1].isdigit() or not 1 <= int(words[1]) <= len(PET_BREEDS):
            problems.add(
                words[0], f"its line is {line!r:.60}, expected the breed, 1 to {len(PET_BREEDS)}, as second word"
            )
            continue
        found[words[0]] = int(words[1])
    problems.raise_if_any()
    return found
