"""A COCO panoptic JSON as raw columns: `read_panoptic`, the one reader of training, evaluation and predictions.

Format: https://cocodataset.org/#format-data, section 4. Nothing is dropped; `findings` says what is wrong with which
record. Segments are checked by `segment_faults`, wherever they come from.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vertebra_eval.coco.fields import crowd_fault, id_cause, is_whole
from vertebra_eval.errors import DataError
from vertebra_eval.files import Problems, read_json
from vertebra_eval.files.file_names import file_name_fault
from vertebra_eval.findings import Findings
from vertebra_eval.nearest import listed

__all__ = [
    "MOST_ID",
    "PanopticCategory",
    "PanopticData",
    "isthing_fault",
    "panoptic_categories",
    "png_folder",
    "read_panoptic",
    "segment_faults",
]

MOST_ID = 2**24 - 1
"""The largest segment id that a PNG holds, as R + 256 G + 65536 B."""


class PanopticCategory(NamedTuple):
    """A class of a panoptic file: what it calls it, its name, and whether its objects are counted (a thing)."""

    id: int
    name: str
    isthing: bool


@dataclass
class PanopticData:
    """The N image records of a panoptic JSON.

    Args:
        source: the JSON file. folder: of the PNG files.
        ids: (N) `image_id` as written, None where it cannot be one. rows: id -> row.
        file_names: (N) of the PNG files, as written.
        segments: (N) lists of `segments_info`; [] where a record has none that can be read.
        categories: as the file lists them; [] in predictions.
    """

    source: Path
    folder: Path
    ids: list[Hashable]
    file_names: list[Any]
    segments: list[list[dict]]
    rows: dict[Hashable, int]
    categories: list[PanopticCategory] = field(default_factory=list)
    findings: Findings = field(default_factory=lambda: Findings("annotations"))

    def path(self, row: int) -> Path:
        """The PNG file of an image."""
        return self.folder / self.file_names[row]

    def refuse(self, rows: Collection[int] | None = None) -> None:
        """Raises DataError with the findings on some records (None: all), the first 20 of them."""
        problems = Problems(self.source)
        for one in self.findings.of(("fatal", "error")):
            row = one.rows[0]
            if rows is None or row in rows:
                key = self.ids[row]
                where = f"annotations[{row}]" + (f" (image {key!r})" if key is not None else "")
                problems.add(where + (f", {one.kind}" if one.kind.startswith("segment ") else ""), one.text)
        problems.raise_if_any()


def png_folder(file: Path) -> Path:
    """Where COCO keeps the PNG files of a panoptic JSON file: in a folder of its name beside it."""
    return file.parent / file.stem  # with_suffix refuses "" and "/", of which the reader says more


def read_panoptic(
    file: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    *,
    categories: Collection[Hashable] | None = None,
    hint: str = "",
) -> PanopticData:
    """A panoptic JSON; the PNG files are not read.

    Args:
        folder: where the PNG files are. None: the JSON's path without `.json`.
        categories: ids that segments may have. None: those of the file's own `categories`, which are read then.
        hint: a sentence for a file that is not there.

    Raises:
        DataError: not there, not JSON, not an object with a list of annotations, faulty categories.
    """
    file = Path(file)
    data = read_json(file, hint=hint)
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        raise DataError(f'{file}: a panoptic file is an object with a list "annotations"')
    known = panoptic_categories(data.get("categories"), file) if categories is None else []
    allowed: set[Hashable] = {one.id for one in known} if categories is None else set(categories)
    found = PanopticData(file, file.with_suffix("") if folder is None else Path(folder), [], [], [], {}, known)
    for row, record in enumerate(data["annotations"]):
        _read_record(found, row, record, allowed)
    return found


def _read_record(data: PanopticData, row: int, record: Any, allowed: set[Hashable]) -> None:
    found, key, name = data.findings, None, None
    segments: list[dict] = []
    if not isinstance(record, dict) or not isinstance(record.get("segments_info"), list):
        found.add("record", "fatal", [row], "must be an object with a list segments_info")
    else:
        key, name = record.get("image_id"), record.get("file_name")
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            found.add("image_id", "fatal", [row], f"image_id is {key!r:.60}, expected a number or a name")
            key = None
        elif key in data.rows:
            found.add("image_id", "error", [row], f"image_id {key!r} stands in annotations[{data.rows[key]}] too")
        if fault := file_name_fault(name):
            found.add("file_name", "error", [row], fault)
        faults = segment_faults(record["segments_info"])
        segments = [] if faults else record["segments_info"]
        for segment in segments:
            category = segment.get("category_id")
            if not is_whole(category) or category not in allowed:
                known = listed(sorted(allowed, key=lambda one: (isinstance(one, str), one)), 8)
                text = f"category_id {category!r:.60} is not among the categories {known}{id_cause(category, allowed)}"
                faults.append((f"segment {segment['id']}", text))
        for which, fault in faults:
            found.add(which, "error", [row], fault)
    data.ids.append(key)
    data.file_names.append(name)
    data.segments.append(segments)
    if key is not None:
        data.rows.setdefault(key, row)


def panoptic_categories(records: Any, file: Path) -> list[PanopticCategory]:
    """The `categories` of a panoptic file; one without a name is called by its id.

    Raises:
        DataError: names the file and each faulty record.
    """
    if not isinstance(records, list) or not records:
        raise DataError(f'{file}: a panoptic file needs a list "categories" with id, name and isthing of each class')
    problems = Problems(file)
    found: dict[int, PanopticCategory] = {}
    for i, record in enumerate(records):
        where = f"categories[{i}]"
        if not isinstance(record, dict) or type(record.get("id")) is not int:
            problems.add(where, "must be an object with a whole number id, a name and isthing")
        elif fault := isthing_fault(record.get("isthing")):
            problems.add(f"{where} (id {record['id']})", fault)
        elif record["id"] in found:
            problems.add(where, f"id {record['id']} occurs more than once")
        else:
            name = str(record.get("name", record["id"]))
            found[record["id"]] = PanopticCategory(record["id"], name, bool(record["isthing"]))
    problems.raise_if_any()
    return list(found.values())


def segment_faults(segments: Sequence[Any], most: int = MOST_ID) -> list[tuple[str, str]]:
    """What is wrong with the ids and marks of an image's `segments_info`: (which segment, what) of each fault.

    Args:
        most: the largest id that may occur.
    """
    found: list[tuple[str, str]] = []
    ids: set[Any] = set()
    for i, segment in enumerate(segments):
        if not isinstance(segment, dict):
            found.append((f"segment {i}", f"is {segment!r:.60}, expected an object with id and category_id"))
            continue
        key = segment.get("id")
        if key is None or not is_whole(key) or not 0 < key <= most:
            what = "id is missing" if key is None else f"id is {key!r:.60}"
            found.append((f"segment {i}", f"{what}, expected a whole number from 1 to {most}"))
            continue
        if key in ids:
            found.append((f"segment {key}", "another segment of the image has this id"))
        ids.add(key)
        if segment.get("iscrowd") is not None and (fault := crowd_fault(segment["iscrowd"])):
            found.append((f"segment {key}", fault))
        area = segment.get("area")
        if area is not None and (not isinstance(area, (int, float)) or not 0 <= area < 2**63 or area != area // 1):
            found.append((f"segment {key}", f"area is {area!r:.60}, expected a whole number of pixels"))
    return found


def isthing_fault(isthing: Any) -> str | None:
    """What is wrong with `isthing`, of a panoptic category or segment, or None. Text such as "0" would be true."""
    if (isinstance(isthing, bool) or is_whole(isthing)) and isthing in (0, 1):
        return None
    return f"isthing is {'missing' if isthing is None else repr(isthing)}, expected true, false, 0 or 1"
