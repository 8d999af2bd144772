"""Classes agree by name: a dataset renumbered so that its classes have the numbers of another list of the same names.

A model counts its classes in the order of its training set. Every other dataset that it meets (validation, test, one
that a checkpoint is evaluated on, the second of a list) passes `match_classes`, and so do its semantic labels and
panoptic segments.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.data.catalog import Metadata
from vertebra.data.formats import Dataset
from vertebra.data.panoptic_labels import segment_stuff_names, stuff_segment_names
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL
from vertebra_eval.nearest import listed, nearest

__all__ = ["match_classes"]

logger = logging.getLogger(__name__)

_KINDS = {"thing_classes": "classes", "stuff_classes": "semantic labels", "keypoint_names": "keypoints"}


def match_classes(dataset: Any, known: Metadata | None, known_from: str = "the model") -> Any:
    """The dataset with its classes numbered as in `known`, matched by name.

    Classes that only `known` has stay without objects; the facts `absent_things` and `absent_stuff` list their numbers.
    Classes that only the dataset has are dropped where `known` was narrowed from them by choice (its `dropped_classes`)
    or no object has them, with a line in the log.

    Args:
        dataset: has `.dicts` and `.metadata`; the same object is returned where nothing differs.
        known: facts of the dataset that the model was trained on; None: nothing is known, nothing is compared.
        known_from: what has those classes, for messages.
    Raises:
        DataError: classes that cannot be matched; shows both lists.
    """
    if known is None:
        return dataset
    own = dataset.metadata
    _check_named(dataset, known, known_from)
    things = _matched(dataset, known, "thing_classes", known_from)
    labels = _matched(dataset, known, "stuff_classes", known_from)
    _check_keypoints(dataset, known, known_from)
    if things.same and labels.same:
        return dataset
    stuff = stuff_segment_names(things.names, labels.names)
    segments = _numbers(segment_stuff_names(own), stuff)
    metadata = _renumbered_facts(own, things, labels, stuff, segments)
    dicts = _renumbered_dicts(dataset.dicts, things.to, labels.to, segments)
    return Dataset(dicts, metadata, checked=isinstance(dataset, Dataset))


@dataclass(frozen=True)
class _Matched:
    """One kind of names.

    Args:
        names: the list after matching.
        to: a number in the dataset to its number in `names`; numbers that are dropped are missing.
        same: nothing changes.
    """

    names: list[str]
    to: dict[int, int]
    same: bool


def _matched(dataset: Any, known: Metadata, kind: str, known_from: str) -> _Matched:
    own, wanted = _names(dataset.metadata, kind), _names(known, kind)
    if own == wanted or not own or not wanted:
        return _Matched(own, {i: i for i in range(len(own))}, same=True)
    to = _numbers(own, wanted)
    unknown = [name for name in own if name not in wanted]
    chosen = [name for name in unknown if name in (known.get("dropped_classes") or ())]
    unused = [] if kind != "thing_classes" else _without_objects(dataset, own, unknown)
    faulty = [name for name in unknown if name not in chosen and name not in unused]
    if faulty or not to or len(set(own)) < len(own) or len(set(wanted)) < len(wanted):
        raise DataError(_cannot_match(dataset.metadata.name, kind, own, wanted, faulty, known_from))
    if chosen:
        logger.warning("dataset %s: `classes` of the training set drops %s", dataset.metadata.name, listed(chosen))
    if left := [name for name in unused if name not in chosen]:
        logger.warning(
            "dataset %s: %s has no objects, and %s does not know it: dropped",
            dataset.metadata.name,
            listed(left),
            known_from,
        )
    return _Matched(wanted, to, same=False)


def _numbers(own: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    place = {name: number for number, name in enumerate(wanted)}
    return {number: place[name] for number, name in enumerate(own) if name in place}


def _names(metadata: Any, kind: str) -> list[str]:
    return [str(name) for name in getattr(metadata, kind, None) or ()]


def _without_objects(dataset: Any, own: Sequence[str], unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    used = set()
    for item in dataset.dicts:
        used |= {one["category_id"] for one in item.get("annotations") or ()}
        used |= {one["category_id"] for one in item.get("segments_info") or () if one["isthing"]}
    return [name for number, name in enumerate(own) if name in unknown and number not in used]


def _check_named(dataset: Any, known: Metadata, known_from: str) -> None:
    """A dataset with objects and without names cannot be compared."""
    wanted = _names(known, "thing_classes")
    if not wanted or _names(dataset.metadata, "thing_classes"):
        return
    if any(item.get("annotations") for item in dataset.dicts):
        name = dataset.metadata.name
        raise DataError(
            f"dataset {name} does not name the classes of its objects; {known_from} has {listed(wanted)}.\n"
            f"  Set them where the dataset is registered: MetadataCatalog.get({name!r}).set(thing_classes=[...])"
        )


def _check_keypoints(dataset: Any, known: Metadata, known_from: str) -> None:
    own, wanted = _names(dataset.metadata, "keypoint_names"), _names(known, "keypoint_names")
    if own and wanted and own != wanted:
        faulty = [name for name in own if name not in wanted]
        raise DataError(_cannot_match(dataset.metadata.name, "keypoint_names", own, wanted, faulty, known_from))


def _cannot_match(
    name: str, kind: str, own: Sequence[str], wanted: Sequence[str], faulty: Sequence[str], known_from: str
) -> str:
    what = _KINDS[kind]
    why = f"{listed(faulty)} of the dataset cannot be matched by name" if faulty else "the names differ or repeat"
    near = {one: nearest(one, list(wanted), limit=1) for one in faulty[:5]}
    hints = [f"{one} -> {found[0]}" for one, found in near.items() if found]
    fixes = {
        "thing_classes": "Rename the classes in the dataset's file, or evaluate some of them: `classes: [...]` of coco",
        "stuff_classes": "Name the labels alike (`classes` or `stuff_classes`), or map them with `label_map`",
        "keypoint_names": "Keypoints must have the same names in the same order",
    }
    return (
        f"the {what} of dataset {name} do not match those of {known_from}: {why}.\n"
        f"  {known_from}: {listed(wanted, 40)}\n"
        f"  {name}: {listed(own, 40)}\n" + (f"  Nearest: {', '.join(hints)}\n" if hints else "") + f"  {fixes[kind]}"
    )


def _renumbered_facts(
    own: Metadata, things: _Matched, labels: _Matched, stuff: Sequence[str], segments: Mapping[int, int]
) -> Metadata:
    """The dataset's facts in the new numbers; per-class lists whose meaning would change are dropped."""
    facts = {key: value for key, value in own.as_dict().items() if key != "name"}
    if not things.same:
        facts.pop("thing_colors", None)
        ids = _mapped(facts.get("thing_dataset_id_to_contiguous_id") or {}, things.to)
        facts["thing_classes"] = things.names
        if ids:
            facts["thing_dataset_id_to_contiguous_id"] = ids
            facts["thing_contiguous_id_to_dataset_id"] = {number: known for known, number in ids.items()}
        facts["absent_things"] = sorted(set(range(len(things.names))) - set(things.to.values()))
    if not labels.same:
        facts.pop("stuff_colors", None)
        facts["stuff_classes"] = labels.names
        facts["absent_stuff"] = sorted(set(range(len(stuff))) - set(segments.values()))
        if facts.get("label_colors") is not None:
            facts["label_colors"] = [[color, _label(number, labels.to)] for color, number in facts["label_colors"]]
        elif not facts.get("panoptic_labels"):  # those are numbered as the segments are
            facts["label_map"] = _label_map(own, labels.to)
    if facts.get("stuff_dataset_id_to_contiguous_id"):
        facts["stuff_dataset_id_to_contiguous_id"] = _mapped(facts["stuff_dataset_id_to_contiguous_id"], segments)
        facts["segment_stuff_classes"] = list(stuff)
    return Metadata(own.name).set(**facts)


def _mapped(ids: Mapping[Any, int], to: Mapping[int, int]) -> dict[Any, int]:
    return {known: to[number] for known, number in ids.items() if number in to}


def _label(number: int, to: Mapping[int, int]) -> int:
    return IGNORED_LABEL if number == IGNORED_LABEL else to[number]


def _label_map(own: Metadata, to: Mapping[int, int]) -> dict[Any, int]:
    """Numbers in the label files to the new classes."""
    written = own.get("label_map")
    if written is not None:
        return {number: _label(meaning, to) for number, meaning in written.items()}
    return {**to, own.get("ignore_label", IGNORED_LABEL): IGNORED_LABEL}


def _renumbered_dicts(
    dicts: Any, things: Mapping[int, int], labels: Mapping[int, int], segments: Mapping[int, int]
) -> Iterator[dict]:
    for item in dicts:
        item = dict(item)
        if item.get("annotations"):
            item["annotations"] = [
                {**one, "category_id": things[one["category_id"]]}
                for one in item["annotations"]
                if one["category_id"] in things
            ]
        if item.get("segments_info"):
            numbers = [things if one["isthing"] else segments for one in item["segments_info"]]
            item["segments_info"] = [  # who reads the PNG stops at the ids of dropped ones
                {**one, "category_id": to[one["category_id"]]}
                for one, to in zip(item["segments_info"], numbers, strict=True)
                if one["category_id"] in to
            ]
        if item.get("sem_seg_label_map"):
            item["sem_seg_label_map"] = {n: _label(c, labels) for n, c in item["sem_seg_label_map"].items()}
        yield item
