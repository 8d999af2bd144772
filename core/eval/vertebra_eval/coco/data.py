"""COCO ground truth as raw columns: `read_coco`, the one reader of training, evaluation and `data info`.

Nothing is dropped or changed here: a record that cannot be used has NaN, -1 or no mask in its row, and `findings` says
why. Only what has no records at all is refused. Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_eval.coco.annotations import CocoAnnotations
from vertebra_eval.coco.fields import id_fault, is_hashable, size_fault
from vertebra_eval.errors import DataError
from vertebra_eval.file_names import file_name_fault
from vertebra_eval.findings import Finding, Findings
from vertebra_eval.json_file import read_json

__all__ = ["CocoCategories", "CocoData", "CocoImages", "distinct_names", "read_categories", "read_coco", "read_images"]


@dataclass
class CocoImages:
    """I image records.

    Args:
        ids: (I,). rows: id -> row; of several with one id the last.
        file_names: (I,) as written, None where there is none.
        sizes: (I, 2) int64 height, width; 0 where unknown.
        lists: LVIS' fields `neg_category_ids` and `not_exhaustive_category_ids` of each image that has them, by row.
    """

    ids: list[Hashable]
    file_names: list[Any]
    sizes: np.ndarray
    rows: dict[Hashable, int]
    lists: dict[int, dict[str, list]] = field(default_factory=dict)
    findings: Findings = field(default_factory=lambda: Findings("images"))


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


@dataclass
class CocoData:
    """A COCO file, or the dict in it.

    Args:
        source: path, or what messages call it.
        annotated: there is a list of annotations, even an empty one.
    """

    source: str
    images: CocoImages
    categories: CocoCategories
    annotations: CocoAnnotations
    annotated: bool = True

    def findings(self) -> list[Finding]:
        """All findings, table after table."""
        self.annotations.settle()
        return [*self.categories.findings, *self.images.findings, *self.annotations.findings]

    def where(self, table: str, row: int) -> str:
        """How messages call a record: `annotations[3] (id 7, image 'a.jpg')`."""
        facts = []
        if table == "annotations":
            key, image = self.annotations.ids[row], int(self.annotations.image[row])
            facts += [f"id {key!r:.40}"] if key is not None else []
            if image >= 0:
                name = self.images.file_names[image]
                facts.append(f"image {(Path(name).name if isinstance(name, str) else self.images.ids[image])!r}")
        else:
            key = (self.images if table == "images" else self.categories).ids[row]
            facts += [f"id {key!r:.40}"] if key is not None else []
        return f"{table}[{row}]" + (f" ({', '.join(facts)})" if facts else "")

    def refuse(
        self,
        severities: Collection[str],
        kinds: Collection[str] | None = None,
        used: np.ndarray | None = None,
        tables: Sequence[str] = ("categories", "images", "annotations"),
        limit: int = 20,
    ) -> None:
        """Raises DataError with the findings of these severities and kinds (None: all), the first `limit` of them.

        Args:
            used: (A,) bool, annotations that matter. None: all.
        """
        found: list[Finding] = []
        for table in tables:
            found += getattr(self, table).findings.of(severities, kinds)
        if used is not None:
            found = [one for one in found if one.kind == "record" or used[one.rows[0]]]
        lines = [f"{self.where(one.table, one.rows[0])}: {one.text}" for one in found[:limit]]
        if len(found) == 1:
            raise DataError(f"{self.source}: {lines[0]}")
        if found:
            more = f"\n  ... and {len(found) - limit} more" if len(found) > limit else ""
            raise DataError(f"{self.source}: {len(found)} faults:\n  " + "\n  ".join(lines) + more)

    def notes(self, kinds: Collection[str], used: np.ndarray | None = None) -> list[str]:
        """Sentences on the errors and notes of some kinds, one for each kind: for a caller that goes on.

        Args:
            used: (A,) bool, annotations that matter. None: all.
        """
        sentences = []
        for part in (self.categories, self.images, self.annotations):
            errors: dict[str, list[Finding]] = {}
            for one in part.findings.of(("error", "note"), kinds):
                if used is not None and part is self.annotations:
                    one = one._replace(rows=[row for row in one.rows if used[row]])
                    if not one.rows:
                        continue
                if one.severity == "note":
                    sentences.append(self.noted(one))
                else:
                    errors.setdefault(one.kind, []).append(one)
            for first, *others in errors.values():
                more = f" (and {len(others)} more such)" if others else ""
                sentences.append(f"{self.where(first.table, first.rows[0])}: {first.text}{more}")
        return sentences

    def noted(self, one: Finding, then: str = "") -> str:
        """A note with the number of its records and the first; `then`: what becomes of them."""
        first = one.rows[0]
        if one.table == "annotations":
            image = int(self.annotations.image[first])
            key = self.images.ids[image] if image >= 0 else None
            own = self.annotations.ids[first]
            called = f"annotations[{first}]" if own is None else f"annotation {own!r}"
            called += f" of image {key!r}"
        else:
            called = self.where(one.table, first)
        return f"{one.what}{then}: {len(one.rows)} (first: {called})" + (f"; {one.remedy}" if one.remedy else "")


def read_coco(source: Any, name: str = "the ground truth", hint: str = "") -> CocoData:
    """COCO ground truth: a path, the dict in it, pycocotools' COCO, or what this returned before.

    Args:
        name: what messages call a source that is not a path.
        hint: a sentence for a file that is not there.

    Raises:
        DataError: not there, not JSON, or not an object with lists of images and categories.
    """
    if isinstance(source, CocoData):
        return source
    data = getattr(source, "dataset", source)
    if isinstance(source, (str, os.PathLike)):
        name, data = str(source), read_json(source, hint=hint)
    _check_top_level(data, name)
    images, categories = read_images(data["images"]), read_categories(data["categories"])
    records = data.get("annotations", [])
    return CocoData(name, images, categories, CocoAnnotations(records, images, categories), "annotations" in data)


def _check_top_level(data: Any, name: str) -> None:
    if isinstance(data, list):
        raise DataError(
            f"{name}: the root is a list, as in a file of detections; ground truth is an object with `images`, "
            "`annotations` and `categories`"
        )
    if not isinstance(data, dict):
        raise DataError(f"{name}: the root is a {type(data).__name__}, expected an object")
    for key in ("images", "categories", "annotations"):
        if key not in data and key != "annotations":
            there = ", ".join(map(str, data)) or "nothing"
            raise DataError(f'{name}: root: the key "{key}" is missing (there are: {there}); write [] for none')
        if not isinstance(data.get(key, []), list):
            raise DataError(f'{name}: root: "{key}" must be a list, not {type(data[key]).__name__}')


def read_images(records: list) -> CocoImages:
    """Image records to columns; see `read_coco`."""
    found = Findings("images")
    records, ids, rows = _identified(records, found)
    sizes = np.zeros((len(records), 2), np.int64)
    names = [record.get("file_name") for record in records]
    lists: dict[int, dict[str, list]] = {}
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
    return CocoImages(ids, names, sizes, rows, lists, found)


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


def distinct_names(names: Sequence[str], called: Callable[[int], Hashable]) -> list[str]:
    """Names as metrics need them: one that several classes share has an id behind it.

    Args:
        called: place of a name -> its id.
    """
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({called(place)})" for place, name in enumerate(names)]
