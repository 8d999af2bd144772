"""The images and categories of a COCO file as columns."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vertebra_eval.coco.fields import id_fault, is_hashable, size_fault
from vertebra_eval.files.file_names import file_name_fault
from vertebra_eval.findings import Findings

__all__ = ["CocoCategories", "CocoImages", "read_categories", "read_images"]

_USUAL = frozenset(
    (
        *("id", "file_name", "width", "height", "license", "coco_url", "flickr_url", "date_captured"),
        *("neg_category_ids", "not_exhaustive_category_ids", "crowdIndex"),
    )
)
"""Keys of image records in COCO itself, LVIS and CrowdPose."""


@dataclass
class CocoImages:
    """I image records.

    Args:
        ids: (I,). rows: id -> row; of several with one id the last.
        file_names: (I,) as written, None where there is none.
        sizes: (I, 2) int64 height, width; 0 where unknown.
        lists: LVIS' fields `neg_category_ids` and `not_exhaustive_category_ids` of each image that has them, by row.
        keys: all keys that records have.
        kept: by key to keep: (I,) values as written, None where a record has none.
        crowd_index: CrowdPose's number of how much persons overlap, 0 to 1, of each image that has it, by row.
    """

    ids: list[Hashable]
    file_names: list[Any]
    sizes: np.ndarray
    rows: dict[Hashable, int]
    lists: dict[int, dict[str, list]] = field(default_factory=dict)
    crowd_index: dict[int, float] = field(default_factory=dict)
    findings: Findings = field(default_factory=lambda: Findings("images"))
    keys: frozenset[str] = frozenset()
    kept: dict[str, list] = field(default_factory=dict)


@dataclass
class CocoCategories:
    """K category records, with `names` as text and the `records` themselves. rows: id -> row, as for images."""

    ids: list[Hashable]
    names: list[str]
    records: list[dict]
    rows: dict[Hashable, int]
    findings: Findings = field(default_factory=lambda: Findings("categories"))

    @property
    def keypoint_names(self) -> list[str]:
        """Those of the first category that names any."""
        named = (record.get("keypoints") for record in self.records)
        return next((names for names in named if isinstance(names, list) and names), [])


def read_images(records: list, keep: Collection[str] | None = ()) -> CocoImages:
    """Image records to columns; see `read_coco`."""
    found = Findings("images")
    records, ids, rows = _identified(records, found)
    sizes = np.zeros((len(records), 2), np.int64)
    names = [record.get("file_name") for record in records]
    lists: dict[int, dict[str, list]] = {}
    crowd_index: dict[int, float] = {}
    first_of: dict[str, int] = {}
    for row, record in enumerate(records):
        height, width = record.get("height"), record.get("width")
        fault = size_fault(height, width)
        if fault is None or _are_whole_floats(height, width):
            sizes[row] = np.array([height, width])
        if fault:
            found.add("size missing" if height is None and width is None else "size", "error", [row], fault)
        name: Any = names[row]
        fault = file_name_fault(name)
        if fault is None and first_of.setdefault(name, row) != row:
            fault = f"file_name {name!r} stands in images[{first_of[name]}] already; an image must have exactly one "
            fault += "record"
        if fault:
            found.add("file_name", "error", [row], fault)
        if "neg_category_ids" in record or "not_exhaustive_category_ids" in record:
            lists[row] = {key: record.get(key) or [] for key in ("neg_category_ids", "not_exhaustive_category_ids")}
        if isinstance(record.get("crowdIndex"), (int, float)) and not isinstance(record["crowdIndex"], bool):
            crowd_index[row] = float(record["crowdIndex"])
    keys: frozenset[str] = frozenset().union(*records)
    kept = {key: [record.get(key) for record in records] for key in (keys - _USUAL if keep is None else keep)}
    return CocoImages(ids, names, sizes, rows, lists, crowd_index, found, keys, kept)


def read_categories(records: list) -> CocoCategories:
    """Category records to columns; see `read_coco`."""
    found = Findings("categories")
    records, ids, rows = _identified(records, found)
    first_of: dict[str, int] = {}
    for row, record in enumerate(records):
        name = record.get("name")
        if not isinstance(name, str) or not name:
            found.add("name", "error", [row], f"name is {name!r:.60}, expected a text")
        elif "\n" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
            found.add("name", "error", [row], f"the name {name!r} holds a line break or half a character")
        elif first_of.setdefault(name, row) != row:
            first = ids[first_of[name]]
            found.add("name taken", "error", [row], f"the name {name!r} is taken by id {first!r} already")
    names = [str(record.get("name", key)) for key, record in zip(ids, records, strict=True)]
    return CocoCategories(ids, names, records, rows, found)


def _identified(records: list, found: Findings) -> tuple[list[dict], list[Hashable], dict[Hashable, int]]:
    """The records, {} for what is not an object; their ids, None where a record has none; id -> row."""
    ids: list[Hashable] = []
    seen: set[Hashable] = set()
    for row, record in enumerate(records):
        key: Any = None
        if not isinstance(record, dict):
            found.add("record", "fatal", [row], f"is {record!r:.60}, expected an object")
        elif "id" not in record:
            found.add("id missing", "fatal", [row], "has no id")
        else:
            key, fault = record["id"], id_fault(record)
            usable = key is not None and is_hashable(key)
            if fault is None and key in seen:
                fault = f"id {key!r} is taken already"
            if fault:
                found.add("id", "error" if usable else "fatal", [row], fault)
            key = key if usable else None
            seen.add(key)
        ids.append(key)
    rows = {key: row for row, key in enumerate(ids) if key is not None}
    return [record if isinstance(record, dict) else {} for record in records], ids, rows


def _are_whole_floats(*sides: Any) -> bool:
    """Sizes such as 20.0, which stop a training, but say what is meant."""
    return all(isinstance(side, (int, float)) and 0 < side < 2**31 and side == int(side) for side in sides)
