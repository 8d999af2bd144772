"""Whether run-length masks are whole: what other tools wrote is summed up before pycocotools walks over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["covered_pixels"]

_MOST_BITS = 60
_LONGEST = 2**31  # pixels of a run
_AT_A_TIME = 20_000  # masks


def covered_pixels(counts: Sequence[str | bytes | list[int]]) -> np.ndarray:
    """(n,) int64 pixels that each mask's runs cover, set or not: height x width of a whole one; -1 if no run lengths.

    Compressed counts are groups of 5 bits, lowest first, each a character from code 48 on, with 32 added to all but
    the last of a number, and the sign in its highest bit. From the fourth on, a number is the difference to the run
    two before (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleToString).

    Args:
        counts: compressed, as text or bytes, or a list of run lengths.
    """
    covered = np.full(len(counts), -1, np.int64)
    packed = []
    for row, one in enumerate(counts):
        if isinstance(one, (str, bytes)):
            packed.append(row)
        elif all(type(run) is int and 0 <= run < _LONGEST for run in one):
            covered[row] = sum(one)
    for start in range(0, len(packed), _AT_A_TIME):
        rows = packed[start : start + _AT_A_TIME]
        covered[rows] = _compressed([counts[row] for row in rows])
    return covered


def _compressed(counts: list[str | bytes]) -> np.ndarray:
    parts = [one if isinstance(one, bytes) else one.encode("latin-1", "replace") for one in counts]
    lengths = np.array([len(part) for part in parts])
    codes = np.frombuffer(b"".join(parts), np.uint8).astype(np.int64) - 48
    of_mask = np.repeat(np.arange(len(parts)), lengths)  # (C,) of each character
    last = np.cumsum(lengths)[lengths > 0] - 1
    broken = np.bincount(of_mask[(codes < 0) | (codes > 63)], minlength=len(parts)) > 0
    broken[of_mask[last[codes[last] >= 32]]] = True  # the last number does not end

    is_end = codes < 32
    is_end[last] = True
    ends = np.flatnonzero(is_end)  # (M,) last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    bits = 5 * (ends - starts + 1)
    broken[of_mask[ends[bits > _MOST_BITS]]] = True
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    shifted = np.concatenate([[0], np.cumsum((codes & 31) << place.clip(max=_MOST_BITS))])
    numbers = shifted[ends + 1] - shifted[starts]
    numbers -= np.where(codes[ends] & 16, np.int64(1) << bits.clip(max=_MOST_BITS), 0)

    count = np.bincount(of_mask[ends], minlength=len(parts))  # numbers of each mask
    first = np.cumsum(count) - count
    runs = _undo_differences(numbers, first[count > 0], count[count > 0])
    wrong = np.flatnonzero((runs < 0) | (runs >= _LONGEST))  # pycocotools would read billions of pixels
    broken[of_mask[ends[wrong]]] = True
    total = np.concatenate([[0], np.cumsum(runs)])
    return np.where(broken, -1, total[first + count] - total[first])


def _undo_differences(numbers: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(M,) run lengths: each number with those two, four, ... before it in its mask, but for the mask's first.

    Args:
        numbers: (M,) of all masks. first, count: (n,) where each mask begins, and its numbers, at least one.
    """
    alone = numbers[first]
    summed = numbers.copy()
    summed[first] = 0
    summed[0::2], summed[1::2] = np.cumsum(summed[0::2]), np.cumsum(summed[1::2])
    before = np.concatenate([[0, 0], summed])
    runs = summed
    even = np.repeat(first & 1, count) == np.arange(len(numbers)) & 1  # position in the mask
    runs -= np.where(even, np.repeat(before[first], count), np.repeat(before[first + 1], count))
    runs[first] = alone
    return runs
