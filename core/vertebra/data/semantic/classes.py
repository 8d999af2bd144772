"""The classes of a dataset of label files: names, colors, and what the numbers in the files mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra.data.catalog import Metadata
from vertebra.data.formats import ROOT_HINT
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL
from vertebra_eval.files import Problems, read_json, read_text

__all__ = ["SemanticClasses", "read_classes"]

Color = tuple[int, int, int]


@dataclass(frozen=True)
class SemanticClasses:
    """What is known of K classes before any label file is read.

    Args:
        names: of the classes, numbered from 0.
        colors: RGB of each class, or None.
        ignored_colors: RGB of what is not a class (void, unlabeled).
        label_map: {number in the files: class, or 255 for none}; None: the numbers are the classes.
        ignore_label: number of pixels without a class in the files.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] | None = None
    ignored_colors: tuple[Color, ...] = ()
    label_map: Mapping[int, int] | None = None
    ignore_label: int = IGNORED_LABEL

    def metadata(self, name: str, *, by_color: bool = False) -> Metadata:
        """As a dataset's metadata, which `LabelReader` reads by; `by_color`: the files hold the colors."""
        metadata = Metadata(name).set(stuff_classes=list(self.names), evaluator_type="sem_seg")
        if self.colors is not None:
            metadata.set(stuff_colors=[list(color) for color in self.colors])
        if by_color:
            pairs = [(list(color), number) for number, color in enumerate(self.colors or ())]
            pairs += [(list(color), IGNORED_LABEL) for color in self.ignored_colors]
            return metadata.set(ignore_label=IGNORED_LABEL, label_colors=pairs)
        if self.label_map is None:
            return metadata.set(ignore_label=self.ignore_label)
        return metadata.set(ignore_label=IGNORED_LABEL, label_map={self.ignore_label: IGNORED_LABEL, **self.label_map})


def read_classes(path: Path) -> SemanticClasses:
    """Class names out of a file: text with one name in a line, or JSON.

    JSON is a list of names, or an object whose `classes` lists names or objects {`index`, `name`, `colour` or `color`,
    `mask_value` (the number in the files, where it is not the index), `ignore` (true: no class)}, perhaps with
    `ignore_label` or `ignore_index`.

    Raises:
        DataError: names the file and every entry that cannot be.
    """
    if path.suffix.lower() != ".json":
        return SemanticClasses(_from_text(path))
    data = read_json(path, hint=ROOT_HINT)
    entries = data.get("classes") if isinstance(data, dict) else data
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: expected a list of classes, or an object with the list "classes"')
    if all(isinstance(entry, str) for entry in entries):
        return SemanticClasses(tuple(entries), ignore_label=_ignored(data, path))
    problems = Problems(path)
    for i, entry in enumerate(entries):
        fault = _fault(entry)
        if fault:
            problems.add(f"class {i}", fault)
    problems.raise_if_any()
    return _from_entries(entries, _ignored(data, path), path)


def _from_entries(entries: Sequence[Mapping[str, Any]], ignore_label: int, path: Path) -> SemanticClasses:
    entries = [{"index": i, **entry} for i, entry in enumerate(entries)]
    kept = sorted((entry for entry in entries if not entry.get("ignore")), key=lambda entry: entry["index"])
    left_out = [entry for entry in entries if entry.get("ignore")]
    numbers = [entry["index"] for entry in kept]
    if numbers != list(range(len(kept))):
        raise DataError(
            f"{path}: the classes have the numbers {numbers}; without those to ignore they must run from 0 without gaps"
        )
    label_map = None
    if len(left_out) > 1 or any("mask_value" in entry for entry in entries):
        label_map = {entry.get("mask_value", entry["index"]): entry["index"] for entry in kept}
        label_map |= {entry.get("mask_value", entry["index"]): IGNORED_LABEL for entry in left_out}
    elif left_out and ignore_label == IGNORED_LABEL:
        ignore_label = left_out[0]["index"]
    found = [_color(entry) for entry in kept]
    colors = tuple(color for color in found if color is not None)
    return SemanticClasses(
        tuple(entry["name"] for entry in kept),
        colors if len(colors) == len(found) else None,
        tuple(color for color in map(_color, left_out) if color is not None),
        label_map,
        ignore_label,
    )


def _from_text(path: Path) -> tuple[str, ...]:
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: the file of class names cannot be read ({err})") from err
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise DataError(f"{path}: no class name in it; write one in each line")
    return names


def _fault(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return f'is {entry!r:.80}, expected an object with "name"'
    for key in ("index", "mask_value"):
        if key in entry and (type(entry[key]) is not int or entry[key] < 0):
            return f'"{key}" is {entry[key]!r}, expected a whole number from 0'
    color = entry.get("colour", entry.get("color"))
    if color is not None and _color(entry) is None:
        return f"its color is {color!r:.60}, expected [red, green, blue], each 0 to 255"
    return None


def _color(entry: Mapping[str, Any]) -> Color | None:
    color = entry.get("colour", entry.get("color"))
    sound = isinstance(color, list) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
    return tuple(color) if sound else None


def _ignored(data: Any, path: Path) -> int:
    given = None
    if isinstance(data, dict):
        given = data.get("ignore_label", data.get("ignore_index"))
    if given is not None and type(given) is not int:
        raise DataError(f"{path}: ignore_label is {given!r}, expected a whole number")
    return IGNORED_LABEL if given is None else given
