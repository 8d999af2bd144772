"""COCO's run lengths (RLE): the one parser of their text, vectorized over masks, and what is wrong with them.

pycocotools reads past its buffers on runs that do not add up, so nothing reaches it that was not parsed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["covered_pixels", "parse_run_lengths", "run_length_fault"]

_MOST_CHARACTERS = 6  # of a number: 2^29 pixels, more than any image has
_AT_A_TIME = 20_000  # masks, which bounds the memory
_FAULTS = {
    1: "is not a compressed run length string: it has characters outside the alphabet",
    2: "is not a compressed run length string: it ends inside a run",
    3: "is not a compressed run length string: a run is longer than any image",
    4: "has a negative run length",
}


def parse_run_lengths(counts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The run lengths in compressed COCO text.

    Each number is written in groups of 5 bits, lowest first, as characters from '0' (48) on; bit 5 of a character says
    that more follow, bit 4 of the last is the sign. From the fourth on, a number is the difference to the run two
    before (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleToString).

    Returns:
        (M,) int64 runs of all masks; (n,) int64 number of runs of each mask; (n,) int8 0 for sound ones, otherwise the
        number of a fault: the runs of such a mask mean nothing.
    """
    parts = [one if isinstance(one, bytes) else one.encode("latin-1", "replace") for one in counts]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    codes = np.frombuffer(b"".join(parts), np.uint8).astype(np.int64) - 48
    of_mask = np.repeat(np.arange(len(parts)), lengths)  # (C,) of each character
    faults = np.zeros(len(parts), np.int8)
    last = np.cumsum(lengths)[lengths > 0] - 1
    faults[of_mask[last[codes[last] >= 32]]] = 2

    is_end = codes < 32
    is_end[last] = True
    ends = np.flatnonzero(is_end)  # (M,) last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    characters = ends - starts + 1
    faults[of_mask[ends[characters > _MOST_CHARACTERS]]] = 3
    faults[of_mask[(codes < 0) | (codes > 63)]] = 1
    bits = 5 * characters.clip(max=_MOST_CHARACTERS)
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, characters)).clip(max=_MOST_CHARACTERS)
    numbers = np.add.reduceat((codes & 31) << place, starts) if len(starts) else np.zeros(0, np.int64)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << bits, 0)

    count = np.bincount(of_mask[ends], minlength=len(parts))  # numbers of each mask
    first = np.cumsum(count) - count
    runs = _undo_differences(numbers, first[count > 0], count[count > 0])
    negative = np.bincount(of_mask[ends[runs < 0]], minlength=len(parts)) > 0
    faults[negative & (faults == 0)] = 4
    return runs, count, faults


def covered_pixels(counts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 pixels that each mask's runs cover, set or not: height x width of a whole one; and the (n,) faults of
    `parse_run_lengths`."""
    covered, faults = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int8)
    for start in range(0, len(counts), _AT_A_TIME):
        runs, count, found = parse_run_lengths(counts[start : start + _AT_A_TIME])
        total = np.concatenate([[0], np.cumsum(runs)])
        first = np.cumsum(count) - count
        covered[start : start + _AT_A_TIME] = total[first + count] - total[first]
        faults[start : start + _AT_A_TIME] = found
    return covered, faults


def run_length_fault(rle: Any, size: tuple[int, int] | None) -> str | None:
    """What is wrong with one COCO run-length mask `{"size": [h, w], "counts": ...}`, or None.

    Args:
        size: height and width of its image; None: not known.
    """
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        return "is neither a list of polygons nor a run length mask with `size` and `counts`"
    own = list(rle["size"]) if isinstance(rle["size"], (list, tuple, np.ndarray)) else []
    if len(own) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in own):
        return f"has size {rle['size']!r:.60}, expected [height, width]"
    if own[0] * own[1] >= 2**32:
        return f"has size {own}, more pixels than COCO's format can hold (2^32)"
    if size is not None and tuple(own) != tuple(size):
        return f"has size {own}, its image [{size[0]}, {size[1]}] (height, width)"
    counts, of = rle["counts"], "its image has" if size is not None else "its size says"
    if isinstance(counts, (str, bytes)):
        covered, faults = covered_pixels([counts])
        if faults[0]:
            return _FAULTS[int(faults[0])]
        total = int(covered[0])
    elif isinstance(counts, (list, tuple)) and all(type(run) is int for run in counts):
        if min(counts, default=0) < 0:
            return _FAULTS[4]
        total = sum(counts)
    else:
        return "has counts that are neither a string nor a list of whole numbers"
    pixels = own[0] * own[1]
    return None if total == pixels else f"has runs over {total} pixels, {of} {pixels}"


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
