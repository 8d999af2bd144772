"""Pairs of an image and its label file, found by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vertebra.data.images.read import image_size, image_suffixes
from vertebra.errors import DataError
from vertebra_eval.files import Problems, read_text

__all__ = ["find_files", "pair_files", "read_names", "records_of"]


def pair_files(
    images: Path,
    masks: Path,
    *,
    image_ending: str = "",
    mask_ending: str = "",
    names: Sequence[str] | None = None,
    strict: bool = True,
) -> list[tuple[str, Path, Path]]:
    """(name, image, label file) of each pair, sorted by name, or in the order of `names`.

    A name is the path below the folder without its suffix and without the ending: `aachen/a_leftImg8bit.png` with the
    ending `_leftImg8bit` has the name `aachen/a`. Subfolders are searched.

    Args:
        names: only these; by default all.
        strict: an image without a label file is an error, and a label file without an image; else they are skipped.
    Raises:
        DataError: a folder that is not there or has no images, files without a partner, two files of one name.
    """
    found, labels = find_files(images, image_ending), find_files(masks, mask_ending)
    problems = Problems(images)
    wanted = sorted(found) if names is None else list(names)
    for name in wanted:
        if name not in found:
            problems.add(name, f"there is no image {name}{image_ending}.*")
        elif strict and name not in labels:
            problems.add(found[name].name, f"has no label file {masks}{os.sep}{name}{mask_ending}.png")
    if strict and names is None:
        for name in sorted(labels.keys() - found.keys()):
            problems.add(str(labels[name]), f"is a label file without an image {name}{image_ending}.*")
    problems.raise_if_any()
    pairs = [(name, found[name], labels[name]) for name in wanted if name in labels]
    if not pairs:
        raise DataError(f"{images}: no image there has a label file in {masks}; the names must agree")
    return pairs


def find_files(folder: Path, ending: str) -> dict[str, Path]:
    """{name: image file} below a folder, of files whose stem ends in `ending`.

    Raises:
        DataError: no such folder, no such file in it, or two files of one name.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. A relative path counts from data.root, which the command line can set "
            "(data.root=DIR), otherwise from the current directory"
        )
    found: dict[str, Path] = {}
    problems = Problems(folder)
    others = 0
    for parent, _, files in sorted(os.walk(folder, followlinks=True)):
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() not in image_suffixes() or file.startswith("."):
                continue
            if not stem.endswith(ending):
                others += 1
                continue
            path = Path(parent, file)
            name = path.relative_to(folder).with_name(stem[: len(stem) - len(ending)]).as_posix()
            if name in found:
                problems.add(name, f"two files have this name: {found[name].name} and {file}; remove one of them")
            found[name] = path
    problems.raise_if_any()
    if not found:
        raise DataError(
            f"{folder}: no image file there"
            + (f" whose name ends in {ending} before its suffix ({others} others)" if ending else "")
        )
    return found


def read_names(path: Path) -> list[str]:
    """The first word of each line of a list of images, as Pascal VOC's ImageSets; lines that begin with # are skipped.

    Raises:
        DataError: the file cannot be read, or has no names.
    """
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: the list of images cannot be read ({err})") from err
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"{path}: the list names no image")
    return names


def records_of(pairs: Sequence[tuple[str, Path, Path]]) -> list[dict]:
    """Standard dicts of the pairs; the name is the `image_id`. Of the images only the headers are read."""
    records = []
    for name, image, labels in pairs:
        height, width = image_size(image)
        records.append(
            {
                "file_name": str(image),
                "height": height,
                "width": width,
                "image_id": name,
                "sem_seg_file_name": str(labels),
            }
        )
    return records
