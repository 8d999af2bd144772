"""One field of many records as a column, and what is wrong with it where it is not numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any

import numpy as np

from vertebra_eval.findings import Findings, Severity

__all__ = [
    "box_fault",
    "crowd_fault",
    "id_cause",
    "id_fault",
    "is_hashable",
    "is_whole",
    "keypoints_fault",
    "number_rows",
    "numbers_of",
    "size_fault",
    "visibility_fault",
]

_PLAIN = {int, float}
_AT_A_TIME = 1 << 16  # numbers, which bounds the memory of reading them


def number_rows(
    values: Sequence[Any],
    length: int,
    fault: Callable[[Any], str | None],
    found: Findings,
    kind: str,
    severity: Severity = "fatal",
) -> np.ndarray:
    """(n, length) float64; NaN in the rows of None and of those with a fault, which are added to `found`.

    Args:
        values: n lists of numbers; None where there is none.
        fault: what is wrong with one value, or None.
    """
    if type(None) in set(map(type, values)):
        there = np.array([row for row, value in enumerate(values) if value is not None], np.int64)
        plain = _plain_rows([values[row] for row in there.tolist()], length)
        rows = np.full((len(values), length), np.nan)
        if plain is not None:
            rows[there] = plain
    else:
        there = np.arange(len(values))
        plain = _plain_rows(values, length)
        rows = np.full((len(values), length), np.nan) if plain is None else plain
    for row in (there if plain is None else there[~_good(rows)[there]]).tolist():  # a closer look at these alone
        text = fault(values[row])
        if text:
            found.add(kind, severity, [row], text)
            rows[row] = np.nan
        else:
            rows[row] = numbers_of(values[row])
    return rows


def _plain_rows(values: Sequence[Any], length: int) -> np.ndarray | None:
    """(n, length) float64 of n lists of numbers; None where one is something else, or holds something else."""
    if not set(map(type, values)) <= {list} or not set(map(len, values)) <= {length}:
        return None
    rows = np.empty((len(values), length))
    step = max(1, _AT_A_TIME // max(length, 1))
    for start in range(0, len(values), step):
        flat = list(chain.from_iterable(values[start : start + step]))
        try:
            numbers = np.frombuffer(array("d", flat), np.float64)  # other than numpy's, it takes no texts for numbers
        except (TypeError, OverflowError):  # a whole number may be beyond any float
            return None
        if {bool, np.bool_} & {type(flat[place]) for place in np.flatnonzero((numbers == 0) | (numbers == 1)).tolist()}:
            return None
        rows[start : start + step] = numbers.reshape(-1, length)
    return rows


def _good(rows: np.ndarray) -> np.ndarray:
    """(n,) bool, rows that no fault function has to look at: finite, all but the first two numbers not below 0."""
    return np.isfinite(rows).all(axis=1) & (rows[:, 2:] >= 0).all(axis=1)


def numbers_of(values: Any) -> list | None:
    """The numbers in a flat list, tuple or array, or None where it is something else."""
    if type(values) is list and _PLAIN.issuperset(map(type, values)):  # nearly all of them
        return values
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        return None
    real = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return list(values) if real else None


def are_finite(numbers: list) -> bool:
    """Whether all are finite and within a float's range."""
    try:
        return math.isfinite(sum(map(float, numbers)))  # NaN and infinity survive a sum
    except OverflowError:
        return False


def is_whole(value: Any) -> bool:
    """An integer, of Python or numpy, and not a truth value."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def box_fault(box: Any, expected: str = "4 numbers x, y, w, h") -> str | None:
    """What is wrong with one box of position and size, or None; sides of length 0 pass.

    Args:
        expected: the numbers by name; with five, the last is an angle.
    """
    numbers = numbers_of(box)
    if numbers is None or len(numbers) != (5 if expected.startswith("5") else 4):
        what = "bbox is missing" if box is None else f"bbox is {box!r:.80}"
        return f"{what}, expected {expected}"
    if not are_finite(numbers):
        return f"bbox {box!r:.80} is not finite"
    if min(numbers[2:4]) >= 0:
        return None
    return f"bbox {box} has a negative width or height" + (
        "; x, y must be the upper left corner" if len(numbers) == 4 else ""
    )


def keypoints_fault(keypoints: Any, count: int) -> str | None:
    """What is wrong with the keypoints of one annotation, or None; any visibility passes.

    Args:
        count: number of keypoints; 0: any.
    """
    numbers = numbers_of(keypoints)
    if numbers is None or len(numbers) % 3 or len(numbers) != 3 * (count or len(numbers) // 3):
        expected = f"{3 * count} numbers" if count else "numbers"
        return f"keypoints must be {expected}: x, y and visibility of each of the category's keypoints"
    return None if are_finite(numbers) else "keypoints have a value that is not a finite number"


def visibility_fault(keypoints: Any) -> str | None:
    """What is wrong with the visibilities of sound keypoints, flat or (K, 3), or None."""
    seen = {*np.asarray(keypoints, np.float64).reshape(-1, 3)[:, 2].tolist()}
    if seen <= {0, 1, 2}:
        return None
    values = [int(value) if value.is_integer() else value for value in sorted(seen)]
    return f"keypoint visibilities {values}, expected 0, 1 or 2"


def crowd_fault(iscrowd: Any) -> str | None:
    """What is wrong with `iscrowd`, or None."""
    return None if iscrowd in (0, 1) else f"iscrowd is {iscrowd!r}, expected 0 or 1"


def size_fault(height: Any, width: Any) -> str | None:
    """What is wrong with an image's size, or None."""
    if all(is_whole(side) and 0 < side < 2**31 for side in (height, width)):
        return None
    return f"height and width are {height!r} and {width!r}, expected whole numbers above 0"


def id_fault(record: dict, field: str = "id") -> str | None:
    """What is wrong with the id of a record, or None: whole numbers of 64 bits and texts pass."""
    key: Any = record.get(field)
    if not is_whole(key) and not isinstance(key, str):
        whole = [int(key)] if isinstance(key, float) and key.is_integer() else []
        return f"{field} is {key!r:.60}, expected a whole number or a text{id_cause(key, whole)}"
    if is_whole(key) and not -(2**63) <= key < 2**63:
        return f"{field} {key} does not fit in 64 bits"
    return None


def is_hashable(key: Any) -> bool:
    """Whether it can be an id at all."""
    try:
        hash(key)
    except TypeError:
        return False
    return True


def id_cause(key: Any, known: Any) -> str:
    """`; write 1 ...` for an id that is one of the known ones but for its type; otherwise empty."""
    if isinstance(key, str):
        number = int(key) if len(key) < 20 and key.removeprefix("-").isdecimal() else None
        return f"; the ids are numbers: write {number} without quotes" if number in known else ""
    if isinstance(key, bool) or not isinstance(key, (int, float)) or not abs(key) < 2**63:
        return ""
    whole = int(key)
    if whole == key and str(whole) in known:
        return f'; the ids are texts: write "{whole}"'
    if isinstance(key, float) and whole == key and whole in known:
        return f"; ids are whole numbers: write {whole} (pandas writes {key} where a column has gaps)"
    return ""
