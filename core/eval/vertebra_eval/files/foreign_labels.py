"""Labels of other formats where a COCO JSON file is expected: what they are, for the message that refuses them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from vertebra_eval.files.regular import read_bytes
from vertebra_eval.image_types import image_suffixes

__all__ = ["foreign_labels"]

_CONVERT = "convert them to a COCO JSON file (images, annotations, categories)"
_MOST = 1000  # entries of a folder that are looked at
_READ = 1 << 20


def foreign_labels(path: Path) -> str | None:
    """What a file or folder holds instead of COCO JSON, and what to do; None where it does not show."""
    if path.is_dir():
        return _in_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return f"these are XML labels, such as those of Pascal VOC; {_CONVERT}"
    if suffix == ".txt":
        return f"these are labels of YOLO, one text file per image; {_CONVERT}" if _is_yolo(path) else None
    if suffix == ".csv":
        return f"this is a table; {_CONVERT}"
    if suffix in image_suffixes():
        return "this is an image. Name the file of its annotations, or a folder of images in `vertebra predict`"
    return None


def _in_folder(folder: Path) -> str | None:
    """By its files, and by those of the folders in it that usually hold labels."""
    pictures = False
    for place in (folder, *(folder / name for name in ("Annotations", "annotations", "labels", "labels/train"))):
        if not place.is_dir():
            continue
        files = [path for path in islice(place.iterdir(), _MOST) if path.is_file()]
        suffixes = {path.suffix.lower() for path in files}
        where = "" if place == folder else f" in {place.relative_to(folder)}"
        if ".xml" in suffixes:
            return f"it holds XML labels{where}, such as those of Pascal VOC; {_CONVERT}"
        texts = [path for path in files if path.suffix.lower() == ".txt"]
        if any(map(_is_yolo, texts[:20])):
            return f"it holds labels of YOLO{where}, one text file per image; {_CONVERT}"
        found = sorted(path.name for path in files if path.suffix.lower() == ".json")
        if found:
            return f"name the JSON file itself{where}: {', '.join(found[:8])}"
        pictures = pictures or bool(suffixes & image_suffixes())
    return "it holds images and no annotations; name a COCO JSON file" if pictures else None


def _is_yolo(path: Path) -> bool:
    """Whether each line is a class number and at least four numbers."""
    try:
        lines = read_bytes(path)[:_READ].decode().split("\n")
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except (OSError, ValueError):
        return False
    return bool(rows) and all(len(row) >= 5 and row[0].is_integer() for row in rows)
