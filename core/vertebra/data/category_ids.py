"""The numbers that a dataset's own files have for its classes, which a model counts from 0."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import count
from typing import Any, Literal

import numpy as np

__all__ = ["category_ids", "id_order", "ids_by_class"]


def category_ids(metadata: Any, kind: Literal["thing", "stuff"]) -> list[Hashable]:
    """The dataset's category id of each thing, or of each kind of stuff; [] where nobody knows any.

    Args:
        metadata: of which `thing_dataset_id_to_contiguous_id`, or the same of stuff, is read.
    """
    mapping = getattr(metadata, f"{kind}_dataset_id_to_contiguous_id", None) or {}
    return ids_by_class(mapping, max(mapping.values(), default=-1) + 1)


def ids_by_class(mapping: Mapping[Hashable, int] | None, num_classes: int) -> list[Hashable]:
    """The dataset's category id of each class number. Where the mapping has none: the class number itself, or the next
    number above it that is not the id of another class.

    Args:
        mapping: such as the metadata's `thing_dataset_id_to_contiguous_id`. Of several ids of a class the first in
            order counts.
    """
    ids: dict[int, Hashable] = {}
    for category_id, number in sorted((mapping or {}).items(), key=lambda item: id_order(item[0])):
        ids.setdefault(number, category_id)
    taken, found = set(ids.values()), []
    for number in range(num_classes):
        if number not in ids:
            ids[number] = next(free for free in count(number) if free not in taken)
            taken.add(ids[number])
        found.append(ids[number])
    return found


def id_order(value: Any) -> tuple:
    """Sorts numbers by size, before everything else by its text."""
    return (0, value, "") if isinstance(value, (int, float, np.number)) else (1, 0, str(value))
