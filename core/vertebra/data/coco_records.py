"""The records of a COCO file, one kind after the other: categories, images, annotations. Checked, then converted."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.masks import within_reach
from vertebra.data.record_faults import box_fault, keypoints_fault, mask_faults, size_fault
from vertebra.structures import BoxMode
from vertebra_eval.coco_objects import id_cause, mask_of, object_notes
from vertebra_eval.file_names import file_name_fault
from vertebra_eval.json_file import Problems
from vertebra_eval.panoptic.segments import crowd_fault

__all__ = ["Categories", "derive_flip_map", "notes_on_objects", "read_annotations", "read_categories", "read_images"]

Id = int | str
_IDS = ("image_id", "category_id")


@dataclass
class Categories:
    """The classes of a dataset. `to_contiguous` maps the file's ids to 0..K-1, `ignored` are ids dropped by choice."""

    names: list[str] = field(default_factory=list)
    to_contiguous: dict[Id, int] = field(default_factory=dict)
    ignored: set[Id] = field(default_factory=set)
    ignored_names: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    flip_map: list[tuple[str, str]] = field(default_factory=list)
    skeleton: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __contains__(self, key: object) -> bool:
        return key in self.to_contiguous or key in self.ignored


class _Notes:
    """What was changed in annotations: by kind, how often and in which one first."""

    def __init__(self) -> None:
        self._kinds: dict[str, list] = {}

    def add(self, kind: str, record: dict) -> None:
        seen = self._kinds.setdefault(kind, [0, record])
        seen[0] += 1

    def lines(self) -> list[str]:
        return [
            f"{kind}: {count} (first: annotation {first['id']!r} of image {first['image_id']!r})"
            for kind, (count, first) in self._kinds.items()
        ]


def read_categories(
    records: list,
    problems: Problems,
    classes: list[str] | None,
    flip_map: list[list[str]] | None,
    annotated: Collection[Id] | None = None,
) -> Categories:
    """Category records to contiguous classes, in the order of their ids or of `classes`.

    Args:
        annotated: ids of the categories that have annotations, where that is known.
    """
    by_id: dict[Id, dict] = {}
    names: dict[str, Id] = {}
    notes: list[str] = []
    unused = set() if annotated is None else _unused_namesakes(records, annotated)
    for i, record in enumerate(records):
        if i in unused:
            notes.append(
                f"categories[{i}] (id {record['id']!r}) has the name {record['name']!r} of another and no annotations "
                "(the parent that Roboflow writes): dropped"
            )
            continue
        where = f"categories[{i}]"
        fault = _id_fault(record, by_id)
        if fault:
            problems.add(where, fault)
            continue
        name = record.get("name")
        if not isinstance(name, str) or not name:
            problems.add(f"{where} (id {record['id']!r})", f"name is {name!r}, expected a text")
        elif "\n" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
            problems.add(f"{where} (id {record['id']!r})", f"the name {name!r} holds a line break or half a character")
        elif name in names:
            problems.add(f"{where} (id {record['id']!r})", f"the name {name!r} is taken by id {names[name]!r} already")
        else:
            names[name] = record["id"]
            by_id[record["id"]] = record
    result = Categories()
    for name in classes if classes is not None else ():
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=3) or names)
            problems.add("classes", f"{name!r} is not among the file's categories. Nearest: {near}")
    ordered = sorted(by_id, key=lambda key: (isinstance(key, str), key))
    if classes is not None:
        ordered = [names[name] for name in classes if name in names]
    result.names = [by_id[key]["name"] for key in ordered]
    result.to_contiguous = {key: i for i, key in enumerate(ordered)}
    result.ignored = by_id.keys() - result.to_contiguous.keys()
    result.ignored_names = [record["name"] for key, record in by_id.items() if key in result.ignored]
    result.notes = notes
    if classes is None and annotated is not None and (parent := _unused_parent(by_id, annotated)) is not None:
        rest = [by_id[key]["name"] for key in ordered if key != parent]
        result.notes.append(
            f"category {parent!r} ({by_id[parent]['name']}) has no annotations and is the supercategory of all others, "
            f"as Roboflow writes it; `classes: [{', '.join(rest)}]` would drop it"
        )
    _read_keypoint_names([by_id[key] for key in ordered], result, problems, flip_map)
    return result


def _unused_namesakes(records: list, annotated: Collection[Id]) -> set[int]:
    """Places of Roboflow's parent category, where it has the name of a class: no annotations, and others below it."""
    right = [
        (i, record)
        for i, record in enumerate(records)
        if isinstance(record, dict) and isinstance(record.get("id"), (int, str)) and isinstance(record.get("name"), str)
    ]
    times = Counter(record["name"] for _, record in right)
    above = {record["supercategory"] for _, record in right if isinstance(record.get("supercategory"), str)}
    return {
        i
        for i, record in right
        if record["id"] not in annotated
        and times[record["name"]] > 1
        and record["name"] in above
        and record.get("supercategory") == "none"
    }


def _unused_parent(by_id: dict[Id, dict], annotated: Collection[Id]) -> Id | None:
    """The category without annotations that all others name as their supercategory."""
    for key, record in by_id.items():
        others = [other for other in by_id.values() if other is not record]
        if key not in annotated and others and all(o.get("supercategory") == record["name"] for o in others):
            return key
    return None


def read_images(records: list, image_root: Path, problems: Problems) -> dict[Id, dict | None]:
    """Image records to standard dicts without annotations, by image id, in the file's order; faulty ones to None."""
    result: dict[Id, dict | None] = {}
    by_name: dict[str, int] = {}
    for i, record in enumerate(records):
        fault = _id_fault(record, result)
        if fault:
            problems.add(f"images[{i}]", fault)
            if isinstance(record, dict) and isinstance(record.get("id"), (int, str, float)):
                result.setdefault(record["id"], None)
            continue
        key, name, height, width = (record.get(field) for field in ("id", "file_name", "height", "width"))
        fault = file_name_fault(name)
        if fault is None and name in by_name:
            fault = (
                f"file_name {name!r} stands in images[{by_name[name]}] already; an image must have exactly one record"
            )
        fault = fault or size_fault(height, width)
        if fault:
            problems.add(f"images[{i}] (id {key!r})", fault)
            result[key] = None
            continue
        by_name[name] = i
        file_name = str(image_root / name)
        result[key] = {"file_name": file_name, "height": height, "width": width, "image_id": key, "annotations": []}
    return result


def read_annotations(
    records: list, images: dict[Id, dict | None], categories: Categories, problems: Problems
) -> list[str]:
    """Append each annotation record to its image's dict. Returns what was fixed, as counted notes for the log."""
    ids: dict[Id, int] = {}
    notes = _Notes()
    corners: Counter[bool] = Counter()  # does the box fit the mask better as corners than as corner and size?
    unnamed: list[int] = []  # records with keypoints that no category names
    for i, record in enumerate(records):
        fault = _id_fault(record, ids)
        if fault:
            problems.add(f"annotations[{i}]", fault)
            continue
        key, image_id = record["id"], record.get("image_id")
        ids[key] = i
        if type(image_id) not in (int, str) or image_id not in images:  # True would be 1
            cause = id_cause(image_id, images)
            problems.add(f"annotations[{i}] (id {key!r})", f"image_id {image_id!r} is not among the images{cause}")
            continue
        image = images[image_id]
        if image is None:  # its own fault is reported already
            continue
        faults = _annotation_faults(record, image, categories)
        for fault in faults:
            problems.add(f"annotations[{i}] (id {key!r}, image {Path(image['file_name']).name!r})", fault)
        if faults or record["category_id"] in categories.ignored:
            continue
        if corners.total() < 2000:  # enough to know
            corners.update(_looks_like_corners(record))
        if not categories.keypoints and isinstance(points := record.get("keypoints"), list) and any(points):
            unnamed.append(i)
        annotation = _convert(record, image, categories, notes)
        if annotation is not None:
            image["annotations"].append(annotation)
    if corners[True] >= 3 and corners[True] > 9 * corners[False]:
        what = f"{corners[True]} boxes fit their masks or areas only as x1, y1, x2, y2; bbox must be x, y, w, h"
        problems.add("annotations", what)
    found = notes.lines()
    if unnamed:
        found.append(
            f"{len(unnamed)} objects have keypoints that are not read (first: annotations[{unnamed[0]}]): no category "
            "has a list `keypoints` with their names"
        )
    return found


def notes_on_objects(records: list[dict], categories: Categories) -> list[str]:
    """`object_notes` on annotation records without a fault."""
    used = [i for i, record in enumerate(records) if record["category_id"] in categories.to_contiguous]
    chosen = [records[i] for i in used]
    images, categories = ({key: n for n, key in enumerate({r[name] for r in chosen})} for name in _IDS)
    areas = [r.get("area") for r in chosen]
    return object_notes(
        np.array([images[r["image_id"]] for r in chosen], np.int64),
        np.array([categories[r["category_id"]] for r in chosen], np.int64),
        _floats([a if type(a) in (int, float) else math.nan for a in areas]),
        np.array([bool(r.get("iscrowd")) for r in chosen], bool),
        _floats([r["bbox"][2] * r["bbox"][3] for r in chosen]),
        lambda row: f"annotations[{used[row]}] (id {chosen[row]['id']!r})",
    )


def _floats(values: list) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # whole numbers beyond any float
        return np.array([math.inf if abs(value) > sys.float_info.max else value for value in values], np.float64)


def derive_flip_map(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of keypoint names that differ by left and right (left_eye, right_eye; eye_l, eye_r), each pair once."""
    other = {"left": "right", "l": "r"}
    pairs = []
    for name in names:
        words = re.split(r"([_\-. ])", name)
        mirrored = "".join(other.get(word.lower(), word) for word in words)
        if mirrored != name:
            pairs.extend((name, found) for found in names if found.lower() == mirrored.lower())
    return pairs


def _id_fault(record: Any, known: dict) -> str | None:
    if not isinstance(record, dict):
        return f"is {record!r:.60}, expected an object"
    key = record.get("id")
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        whole = [int(key)] if isinstance(key, float) and key.is_integer() else []
        cause = id_cause(key, whole)
        return f"id is {key!r}, expected a whole number or a text{cause}" if "id" in record else "has no id"
    if isinstance(key, int) and not -(2**63) <= key < 2**63:
        return f"id {key} does not fit in 64 bits"
    return f"id {key!r} is taken already" if key in known else None


def _read_keypoint_names(
    records: list[dict], result: Categories, problems: Problems, flip_map: list[list[str]] | None
) -> None:
    for record in records:
        names = record.get("keypoints") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            problems.add(f"category {record['name']!r}", "keypoints is not a list of names")
        elif result.keypoints and names and names != result.keypoints:
            problems.add(
                f"category {record['name']!r}", "names other keypoints than the first; one list must do for all"
            )
        elif names and not result.keypoints:
            result.keypoints = names
            given = record.get("skeleton") or []
            edges = [edge for edge in given if _is_edge(edge, len(names))] if isinstance(given, list) else []
            if edges != given:
                result.notes.append(
                    f"category {record['name']!r}: its skeleton is not all pairs of numbers from 1 to {len(names)}; "
                    f"{len(edges)} such pairs are used for drawing"
                )
            result.skeleton = [(names[a - 1], names[b - 1]) for a, b in edges]  # COCO counts keypoints from 1
    known = set(result.keypoints)
    for pair in flip_map or ():
        if len(pair) != 2 or not known.issuperset(pair):
            problems.add(
                "keypoint_flip_map", f"{pair!r} is not a pair of {', '.join(result.keypoints) or 'no keypoints'}"
            )
    result.flip_map = derive_flip_map(result.keypoints) if flip_map is None else [tuple(pair) for pair in flip_map]


def _is_edge(edge: Any, count: int) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(type(end) is int and 1 <= end <= count for end in edge)


def _annotation_faults(record: dict, image: dict, categories: Categories) -> list[str]:
    faults: list[str | None] = []
    category = record.get("category_id")
    if category is None:
        faults.append("category_id is missing")
    elif type(category) not in (int, str) or category not in categories:
        faults.append(f"category_id {category!r} is not among the categories{id_cause(category, categories)}")
    faults.append(box_fault(record.get("bbox"), may_be_empty=True))  # those without area are dropped with a note
    if (mask := mask_of(record.get("segmentation"))) is not None:
        faults += mask_faults(mask, image["height"], image["width"])
    faults.append(crowd_fault(0 if record.get("iscrowd") is None else record["iscrowd"]))
    if categories.keypoints and record.get("keypoints") not in (None, []):
        faults.append(keypoints_fault(record["keypoints"], len(categories.keypoints)))
    return [fault for fault in faults if fault]


def _convert(record: dict, image: dict, categories: Categories, notes: _Notes) -> dict | None:
    """A checked record to a standard annotation; None where nothing of the box lies in the image."""
    height, width = image["height"], image["width"]
    x, y, w, h = record["bbox"]
    if w == 0 or h == 0:
        notes.add("boxes without area, dropped", record)
        return None
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x1 <= x0 or y1 <= y0:
        notes.add("boxes outside their image, dropped", record)
        return None
    if min(x, y, width - x - w, height - y - h) < 0:
        if min(x, y, width - x - w, height - y - h) <= -1:  # rounding reaches out by less in many sets
            notes.add("boxes that reach out of their image by a pixel or more, cut", record)
        x, y, w, h = x0, y0, x1 - x0, y1 - y0
    annotation = {
        "id": record["id"],
        "bbox": [x, y, w, h],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": categories.to_contiguous[record["category_id"]],
        "iscrowd": int(record.get("iscrowd") or 0),
    }
    segmentation = mask_of(record.get("segmentation"))
    if segmentation is not None:
        if isinstance(segmentation, list):
            whole = segmentation
            segmentation = within_reach(whole, height, width)
            if segmentation is not whole:
                notes.add("masks that reach far out of their image, cut", record)
        annotation["segmentation"] = segmentation
    if categories.keypoints and record.get("keypoints"):
        # COCO counts keypoints in pixel indices, boxes and masks in coordinates: half a pixel apart
        annotation["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(record["keypoints"])]
    return annotation


def _looks_like_corners(record: dict) -> list[bool]:
    """[True] if the box fits polygons or area as corners only, [False] if as corner and size only, else []."""
    a, b, c, d = _floats(record["bbox"]).tolist()
    segmentation = mask_of(record.get("segmentation"))
    if isinstance(segmentation, list) and segmentation:
        xs, ys = [x for p in segmentation for x in p[0::2]], [y for p in segmentation for y in p[1::2]]
        right, bottom = max(xs), max(ys)
        size_fits = abs(a + c - right) <= 2 and abs(b + d - bottom) <= 2
        corners_fit = abs(c - right) <= 2 and abs(d - bottom) <= 2
    else:
        area = record.get("area")  # of the box where there is no mask
        if segmentation or type(area) not in (int, float) or c <= a or d <= b:
            return []
        area = _floats([area]).item()
        size_fits = abs(c * d - area) <= 0.01 * area
        corners_fit = abs((c - a) * (d - b) - area) <= 0.01 * area
    return [corners_fit] if size_fits != corners_fit else []
