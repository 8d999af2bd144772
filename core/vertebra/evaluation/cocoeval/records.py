"""Columns out of lists of COCO records, with errors that name the file and the record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.errors import DataError

__all__ = ["box_column", "column", "keypoint_column", "load_json", "number_column", "numbers_of", "sorted_ids"]


def load_json(source: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read, or is cut off or otherwise no JSON.
    """
    try:
        return json.loads(Path(source).read_bytes())
    except (OSError, ValueError, RecursionError) as err:
        raise DataError(f"{source}: cannot be read as JSON: {err}") from err


def column(records: list[dict], name: str, source: str) -> list:
    """One field of all records."""
    try:
        return list(map(itemgetter(name), records))
    except (KeyError, TypeError, IndexError) as err:
        _blame(records, source, lambda record: record[name], f"has no {name}", err)


def number_column(records: list[dict], name: str, source: str) -> np.ndarray:
    """(rows,) float64 of a field with one number."""
    values = column(records, name, source)
    try:
        return np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError) as err:
        _blame(records, source, lambda record: float(record[name]), f"has a {name} that is no number", err)


def box_column(records: list[dict], source: str) -> np.ndarray:
    """(rows, 4) float64 of the field bbox."""
    return _rows_of_numbers(records, "bbox", 4, source)


def keypoint_column(records: list[dict], source: str) -> np.ndarray:
    """(rows, J, 3) float64 of the field keypoints, flat in the records."""
    first = next((record["keypoints"] for record in records if record.get("keypoints")), [])
    if len(first) % 3:
        raise DataError(f"{source}: keypoints have {len(first)} numbers; expected x, y, visibility of each in a row")
    return _rows_of_numbers(records, "keypoints", len(first), source).reshape(len(records), len(first) // 3, 3)


def numbers_of(values: Iterable[Hashable], number: dict[Hashable, int], count: int) -> np.ndarray:
    """(count,) int64 number of each id, -1 where it has none."""
    return np.fromiter(map(number.get, values, repeat(-1)), np.int64, count)


def sorted_ids(ids: Iterable[Hashable]) -> list:
    """Distinct ids in ascending order; numbers before text where both occur."""
    distinct = set(ids)
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=lambda value: (isinstance(value, str), str(value)))


def _rows_of_numbers(records: list[dict], name: str, length: int, source: str) -> np.ndarray:
    rows = column(records, name, source)
    try:
        if set(map(len, rows)) - {length}:
            raise ValueError("not all have the same number of numbers")
        return np.fromiter(chain.from_iterable(rows), np.float64, length * len(rows)).reshape(len(rows), length)
    except (TypeError, ValueError) as err:

        def check(record: dict) -> None:
            if len([float(value) for value in record[name]]) != length:
                raise ValueError

        _blame(records, source, check, f"has a {name} that is not {length} numbers", err)


def _blame(records: list, source: str, check: Callable[[dict], Any], fault: str, cause: Exception) -> None:
    """Raise for the records that `check` fails on."""
    bad = []
    for row, record in enumerate(records):
        try:
            check(record)
        except (KeyError, TypeError, ValueError, IndexError):
            bad.append(row)
    if not bad:
        raise DataError(f"{source}: {cause}") from cause
    shown = str(records[bad[0]])
    what = f"record {bad[0]} {fault}" + (f", and so have {len(bad) - 1} more" if len(bad) > 1 else "")
    raise DataError(f"{source}: {what}: {shown[:200]}{'...' if len(shown) > 200 else ''}") from cause
