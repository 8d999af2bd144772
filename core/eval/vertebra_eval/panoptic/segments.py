"""The records of a panoptic JSON: categories and the `segments_info` of an image, checked in the same words everywhere.

Format: https://cocodataset.org/#format-data, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vertebra_eval.coco.fields import crowd_fault, is_whole
from vertebra_eval.errors import DataError
from vertebra_eval.json_file import Problems

__all__ = [
    "PanopticCategory",
    "isthing_fault",
    "panoptic_categories",
    "segment_faults",
]


class PanopticCategory(NamedTuple):
    """A class of a panoptic file."""

    id: int
    name: str
    isthing: bool


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


def segment_faults(segments: Sequence[Any]) -> list[tuple[str, str]]:
    """What is wrong with the ids and marks of an image's `segments_info`: (which segment, what) of each fault."""
    found: list[tuple[str, str]] = []
    ids: set[Any] = set()
    for i, segment in enumerate(segments):
        if not isinstance(segment, dict):
            found.append((f"segment {i}", f"is {segment!r:.60}, expected an object with id and category_id"))
            continue
        key = segment.get("id")
        if key is None or not is_whole(key) or not 0 < key < 2**24:
            what = "id is missing" if key is None else f"id is {key!r:.60}"
            found.append((f"segment {i}", f"{what}, expected a whole number from 1 to {2**24 - 1}"))
            continue
        if key in ids:
            found.append((f"segment {key}", "another segment of the image has this id"))
        ids.add(key)
        if fault := crowd_fault(segment.get("iscrowd", 0)):
            found.append((f"segment {key}", fault))
    return found


def isthing_fault(isthing: Any) -> str | None:
    """What is wrong with `isthing`, of a panoptic category or segment, or None. Text such as "0" would be true."""
    if (isinstance(isthing, bool) or is_whole(isthing)) and isthing in (0, 1):
        return None
    return f"isthing is {'missing' if isthing is None else repr(isthing)}, expected true, false, 0 or 1"
