"""Columns out of lists of COCO records, with errors that name the file and the record.

Where only some records of a file are read, `rows` are their numbers in the file, for the errors; None: 0, 1, 2, ...
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from vertebra_eval.errors import DataError
from vertebra_eval.regular_files import read_bytes

__all__ = [
    "box_column",
    "column",
    "id_column",
    "keypoint_column",
    "load_json",
    "number_column",
    "sorted_ids",
]

_NO_NUMBER = (TypeError, ValueError, OverflowError)
"""What turning a value into a float raises: no number at all, text, an integer beyond a float's range."""


def load_json(source: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read, or is cut off or otherwise no JSON.
    """
    try:
        return json.loads(read_bytes(source))
    except (OSError, ValueError, RecursionError) as err:
        raise DataError(f"{source}: cannot be read as JSON: {err}") from err


def column(records: list[dict], name: str, source: str, rows: Sequence[int] | None = None) -> list:
    """One field of all records."""
    try:
        return list(map(itemgetter(name), records))
    except (KeyError, TypeError, IndexError) as err:
        _blame(records, source, rows, lambda record: record[name], f"has no {name}", err)


def number_column(records: list[dict], name: str, source: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """(rows,) float64 of a field with one number."""
    values = column(records, name, source, rows)
    try:
        return np.fromiter(values, np.float64, len(values))
    except _NO_NUMBER as err:
        _blame(records, source, rows, lambda record: float(record[name]), f"has no number as {name}", err)


def box_column(records: list[dict], source: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """(rows, 4) float64 of the field bbox."""
    return _rows_of_numbers(records, "bbox", 4, source, rows)


def keypoint_column(records: list[dict], source: str, rows: Sequence[int] | None = None) -> np.ndarray:
    """(rows, J, 3) float64 of the field keypoints, flat in the records."""
    first = next((record["keypoints"] for record in records if record.get("keypoints")), [])
    length = len(first) if isinstance(first, (list, tuple, np.ndarray)) else 3
    if length % 3:
        raise DataError(f"{source}: keypoints have {length} numbers; expected x, y, visibility of each in a row")
    return _rows_of_numbers(records, "keypoints", length, source, rows).reshape(len(records), length // 3, 3)


def id_column(
    records: list[dict], name: str, number: dict[Hashable, int], source: str
) -> tuple[list[Hashable], np.ndarray]:
    """The ids in one field of all records, and (rows,) int64 the number of each, -1 where it has none."""
    ids = column(records, name, source)
    try:
        return ids, np.fromiter(map(number.get, ids, repeat(-1)), np.int64, len(ids))
    except TypeError as err:
        _blame(records, source, None, lambda record: hash(record[name]), f"has no number or text as {name}", err)


def sorted_ids(ids: Iterable[Hashable]) -> list:
    """Distinct ids in ascending order; numbers before text where both occur."""
    distinct = set(ids)
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=lambda value: (isinstance(value, str), str(value)))


def _rows_of_numbers(
    records: list[dict], name: str, length: int, source: str, rows: Sequence[int] | None
) -> np.ndarray:
    values = column(records, name, source, rows)
    try:
        if set(map(len, values)) - {length} or any(issubclass(kind, (str, dict)) for kind in set(map(type, values))):
            raise ValueError("not all have the same number of numbers")
        return np.fromiter(chain.from_iterable(values), np.float64, length * len(values)).reshape(len(values), length)
    except _NO_NUMBER as err:

        def check(record: dict) -> None:
            if isinstance(record[name], (str, dict)) or len([float(value) for value in record[name]]) != length:
                raise ValueError

        is_not = "keypoints that are not" if name == "keypoints" else f"a {name} that is not"
        _blame(records, source, rows, check, f"has {is_not} {length} numbers", err)


def _blame(
    records: list,
    source: str,
    rows: Sequence[int] | None,
    check: Callable[[dict], Any],
    fault: str,
    cause: Exception,
) -> None:
    """Raise for the records that `check` fails on."""
    bad = []
    for row, record in enumerate(records):
        try:
            check(record)
        except (KeyError, IndexError, *_NO_NUMBER):
            bad.append(row)
    if not bad:
        raise DataError(f"{source}: {cause}") from cause
    shown = str(records[bad[0]])
    number = bad[0] if rows is None else rows[bad[0]]
    what = f"record {number} {fault}" + (f", and so have {len(bad) - 1} more" if len(bad) > 1 else "")
    raise DataError(f"{source}: {what}: {shown[:200]}{'...' if len(shown) > 200 else ''}") from cause
