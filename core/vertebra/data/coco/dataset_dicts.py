"""A COCO file's columns to standard dataset dicts: which classes are kept, and what becomes of odd records."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.config.extra_fields import READ_KEYS, FieldSection
from vertebra.data.coco.further_keys import declared_keys, kept_of_image
from vertebra.structures import BoxMode
from vertebra_eval.coco.data import CocoData
from vertebra_eval.coco.images import CocoCategories, CocoImages
from vertebra_eval.coco.objects import object_notes
from vertebra_eval.files import Problems

__all__ = ["Categories", "dataset_dicts", "derive_flip_map", "image_dicts", "kept_categories", "notes_on_objects"]

_STOP = ("fatal", "error")
_IGNORED_KINDS = ("num_keypoints", "segmentation unsized")  # nothing of a training is made of them
_BECOME = {
    "bbox empty": ", dropped",
    "bbox outside": ", dropped",
    "bbox reaches out": ", cut",
    "keypoints unnamed": ", not read",
}
"""What training does with the objects of a note, by its kind."""


@dataclass
class Categories:
    """The classes of a dataset. `to_contiguous` maps the file's ids to 0..K-1, `ignored` are ids dropped by choice."""

    names: list[str] = field(default_factory=list)
    to_contiguous: dict[Any, int] = field(default_factory=dict)
    ignored_names: list[str] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    flip_map: list[tuple[str, str]] = field(default_factory=list)
    skeleton: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def kept_categories(
    found: CocoCategories,
    problems: Problems,
    classes: list[str] | None = None,
    flip_map: list[list[str]] | None = None,
    annotated: Collection[Any] | None = None,
) -> Categories:
    """The categories of a file as contiguous classes, in the order of their ids or of `classes`.

    Args:
        problems: gets what stops a training.
        annotated: ids of the categories that have annotations, where that is known.
    """
    result = Categories()
    unused = set() if annotated is None else _unused_namesakes(found, annotated)
    for row in sorted(unused):
        result.notes.append(
            f"categories[{row}] (id {found.ids[row]!r}) has the name {found.names[row]!r} of another and no "
            "annotations (the parent that Roboflow writes): dropped"
        )
    faulty = set()
    for one in found.findings.of(_STOP):
        row = one.rows[0]
        if one.kind == "name taken" and (row in unused or any(found.names[row] == found.names[r] for r in unused)):
            continue
        faulty.add(row)
        called = f"categories[{row}]" + (
            "" if one.kind in ("id", "id missing", "record") else f" (id {found.ids[row]!r})"
        )
        problems.add(called, one.text)
    rows = [row for row in range(len(found.ids)) if row not in unused and row not in faulty]
    by_id: dict[Any, dict] = {found.ids[row]: found.records[row] for row in rows}
    names = {record["name"]: key for key, record in by_id.items()}
    for name in classes if classes is not None else ():
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=3) or names)
            problems.add("classes", f"{name!r} is not among the file's categories. Nearest: {near}")
    ordered = sorted(by_id, key=lambda key: (isinstance(key, str), key))
    if classes is not None:
        ordered = [names[name] for name in classes if name in names]
    result.names = [by_id[key]["name"] for key in ordered]
    result.to_contiguous = {key: i for i, key in enumerate(ordered)}
    result.ignored_names = [record["name"] for key, record in by_id.items() if key not in result.to_contiguous]
    if classes is None and annotated is not None and (parent := _unused_parent(by_id, annotated)) is not None:
        rest = [by_id[key]["name"] for key in ordered if key != parent]
        result.notes.append(
            f"category {parent!r} ({by_id[parent]['name']}) has no annotations and is the supercategory of all others, "
            f"as Roboflow writes it; `classes: [{', '.join(rest)}]` would drop it"
        )
    _read_keypoint_names([by_id[key] for key in ordered], result, problems, flip_map)
    return result


def _unused_namesakes(found: CocoCategories, annotated: Collection[Any]) -> set[int]:
    """Rows of Roboflow's parent category, where it has the name of a class: no annotations, and others below it."""
    times = Counter(found.names)
    parents = [record.get("supercategory") for record in found.records]
    above = {name for name in parents if isinstance(name, str)}
    return {
        row
        for row, (key, name) in enumerate(zip(found.ids, found.names, strict=True))
        if key not in annotated and times[name] > 1 and name in above and parents[row] == "none"
    }


def _unused_parent(by_id: dict[Any, dict], annotated: Collection[Any]) -> Any:
    """The category without annotations that all others name as their supercategory; None without one."""
    for key, record in by_id.items():
        others = [other for other in by_id.values() if other is not record]
        if key not in annotated and others and all(o.get("supercategory") == record["name"] for o in others):
            return key
    return None


def image_dicts(
    found: CocoImages,
    image_root: Path,
    problems: Problems,
    fields: Mapping[str, FieldSection] | None = None,
    paths_too: bool = False,
) -> dict[Any, dict]:
    """Standard dicts without annotations, by image id, in the file's order; `problems` gets the faulty ones.

    Args:
        fields: declared ones; paths of dense maps count from `image_root`.
        paths_too: see `kept_of_image`.
    """
    for one in found.findings.of(_STOP):
        if one.kind not in _IGNORED_KINDS:
            row = one.rows[0]
            known = one.kind not in ("id", "id missing", "record")
            problems.add(f"images[{row}]" + (f" (id {found.ids[row]!r})" if known else ""), one.text)
    sizes = found.sizes.tolist()
    return {
        key: {
            "file_name": str(image_root / name),
            "height": sizes[row][0],
            "width": sizes[row][1],
            "image_id": key,
            **kept_of_image(found, row, image_root, fields or {}, paths_too),
            "annotations": [],
        }
        for row, (key, name) in enumerate(zip(found.ids, found.file_names, strict=True))
        if isinstance(name, str) and key is not None
    }


def dataset_dicts(
    data: CocoData,
    images: dict[Any, dict],
    categories: Categories,
    problems: Problems,
    fields: Mapping[str, FieldSection] | None = None,
) -> list[str]:
    """Append each annotation to its image's dict. Returns what was odd, as counted notes for the log.

    Boxes stay as they are written, and are cut at the image's border where samples are made; those without area inside
    their image are dropped. Keypoints move by half a pixel: COCO counts them in pixel indices, all else in coordinates.
    """
    found = data.annotations
    found.settle()
    kept = _kept(data, categories)
    for one in found.findings.of(_STOP):
        unused = one.kind in ("keypoints", "visibility") and not categories.keypoints
        if one.kind not in _IGNORED_KINDS and not unused:
            _blame(data, one, problems)
    notes = []
    for one in found.findings.of(("note",)):
        rows = [row for row in one.rows if kept[row]]
        notes += [data.noted(one._replace(rows=rows), _BECOME.get(one.kind, ""))] if rows else []
    if problems.count:
        return notes
    gone = [row for one in found.findings.of(("note",), ("bbox empty", "bbox outside")) for row in one.rows]
    kept[gone] = False
    points = found.keypoints + np.array([0.5, 0.5, 0.0])
    boxes, areas, crowd = found.boxes.tolist(), found.areas.tolist(), found.crowd.tolist()
    of_images = declared_keys(fields or {}, of_instances=False) - declared_keys(fields or {}, of_instances=True)
    kept_keys = found.kept.keys() - of_images - READ_KEYS
    numbers: list[Any] = [categories.to_contiguous.get(key) for key in data.categories.ids]
    for row in np.flatnonzero(kept).tolist():
        annotation = {
            "id": found.ids[row],
            "bbox": boxes[row],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": numbers[found.category[row]],
            "iscrowd": int(crowd[row]),
        }
        if areas[row] == areas[row]:
            annotation["area"] = areas[row]
        if found.masks.kinds[row]:
            annotation["segmentation"] = found.masks.segmentation(row)
        if categories.keypoints and found.has_keypoints[row]:
            annotation["keypoints"] = points[row].reshape(-1).tolist()
        annotation |= {key: found.kept[key][row] for key in kept_keys if found.kept[key][row] is not None}
        images[data.images.ids[found.image[row]]]["annotations"].append(annotation)
    return notes


def _kept(data: CocoData, categories: Categories) -> np.ndarray:
    """(A,) bool: annotations of a kept category."""
    kept = np.array([*(key in categories.to_contiguous for key in data.categories.ids), False], bool)
    return kept[data.annotations.category] & (data.annotations.image >= 0)


def _blame(data: CocoData, one: Any, problems: Problems) -> None:
    row = one.rows[0]
    if one.kind == "bbox corners":
        problems.add("annotations", one.text)
    elif one.kind in ("id", "id taken", "record"):
        problems.add(f"annotations[{row}]", one.text)
    else:
        problems.add(data.where("annotations", row), one.text)


def notes_on_objects(data: CocoData, categories: Categories) -> list[str]:
    """`object_notes` on the annotations of the kept categories."""
    rows, found = np.flatnonzero(_kept(data, categories)), data.annotations
    boxes = found.boxes[rows]
    return object_notes(
        found.image[rows],
        found.category[rows],
        found.areas[rows],
        found.crowd[rows],
        boxes[:, 2] * boxes[:, 3],
        lambda place: f"annotations[{rows[place]}] (id {found.ids[rows[place]]!r})",
    )


def derive_flip_map(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of keypoint names that differ by left and right (left_eye, right_eye; eye_l, eye_r), each pair once."""
    other = {"left": "right", "l": "r"}
    pairs: list[tuple[str, str]] = []
    for name in names:
        words = re.split(r"([_\-. ])", name)
        mirrored = "".join(other.get(word.lower(), word) for word in words)
        if mirrored != name:
            pairs.extend((name, found) for found in names if found.lower() == mirrored.lower())
    return pairs


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
    result.flip_map = (
        derive_flip_map(result.keypoints) if flip_map is None else [(first, second) for first, second in flip_map]
    )


def _is_edge(edge: Any, count: int) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(type(end) is int and 1 <= end <= count for end in edge)
