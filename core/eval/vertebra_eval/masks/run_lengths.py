"""COCO's run lengths (RLE): the one parser of their text, vectorized over masks, and what is wrong with them.

pycocotools reads past its buffers on runs that do not add up, so nothing reaches it that was not parsed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["RunLengths", "join_counts", "measure_joined", "measure_run_lengths", "run_length_fault"]

_MOST_CHARACTERS = 6  # of a number: 2^29 pixels, more than any image has
_AT_A_TIME = 1000  # masks, so that what is computed about them stays in a processor's cache
_FAULTS = {
    1: "is not a compressed run length string: it has characters outside the alphabet",
    2: "is not a compressed run length string: it ends inside a run",
    3: "is not a compressed run length string: a run is longer than any image",
    4: "has a negative run length",
}


class RunLengths(NamedTuple):
    """What the texts of n masks say.

    Args:
        covered: (n,) int64 pixels of all runs: height x width of a whole mask. area: (n,) int64 pixels of the mask.
        faults: (n,) int8 0 for sound ones, otherwise the number of a fault: the pixels mean nothing then.
    """

    covered: np.ndarray
    area: np.ndarray
    faults: np.ndarray


def measure_run_lengths(counts: Sequence[str | bytes]) -> RunLengths:
    """Reads compressed COCO text.

    Each number is written in groups of 5 bits, lowest first, as characters from '0' (48) on; bit 5 of a character says
    that more follow, bit 4 of the last is the sign. From the fourth on, a number is the difference to the run two
    before (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleToString).
    """
    return measure_joined(*join_counts(counts))


def join_counts(counts: Sequence[str | bytes]) -> tuple[bytes, np.ndarray]:
    """All texts as one, and (n,) int64 the characters of each; what is not Latin-1 becomes '?'."""
    lengths = np.fromiter(map(len, counts), np.int64, len(counts))
    if set(map(type, counts)) <= {str}:
        return "".join(counts).encode("latin-1", "replace"), lengths  # type: ignore[arg-type]  # set() has looked
    return b"".join(c.encode("latin-1", "replace") if isinstance(c, str) else c for c in counts), lengths


def measure_joined(text: bytes, lengths: np.ndarray) -> RunLengths:
    """As `measure_run_lengths`, of what `join_counts` gives."""
    covered, area = np.zeros((2, len(lengths)), np.int64)
    faults = np.zeros(len(lengths), np.int8)
    codes = np.frombuffer(text, np.uint8)
    at = 0
    for start in range(0, len(lengths), _AT_A_TIME):
        chosen = slice(start, start + _AT_A_TIME)
        end = at + int(lengths[chosen].sum())
        runs, ends, faults[chosen] = _read_runs(codes[at:end] - np.uint8(48), lengths[chosen])
        pixels = np.add.reduceat(runs, np.concatenate([[0], ends[:-1]]), axis=0, dtype=np.int64)
        covered[chosen], area[chosen] = pixels.sum(axis=1), pixels[:, 1]
        at = end
    return RunLengths(covered, area, faults)


def _read_runs(codes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of runs, the first of each not set and the second set: (R, 2) int32; (n,) int64 where each mask's pairs
    end, at least one; (n,) int8 faults.

    Numbers are 32 bits and wrap around, as pycocotools' do: what is not negative here it reads as the same.

    Args:
        codes: (C,) uint8 the characters of all n masks, less 48. lengths: (n,) characters of each.
    """
    ends = np.cumsum(lengths)
    faults = np.zeros(len(lengths), np.int8)
    last = np.unique(ends[ends > 0]) - 1
    broken = np.concatenate([last[(codes[last] & 32) > 0], np.flatnonzero(codes > 63)])
    if len(broken):  # such masks are read as nothing
        faults[np.searchsorted(ends, broken, side="right")] = np.where(codes[broken] > 63, 1, 2)
        codes = codes[np.repeat(faults == 0, lengths)]
        ends = np.cumsum(np.where(faults, 0, lengths))
    numbers_before = ends - np.searchsorted(np.flatnonzero(codes & 32), ends)  # each has one last character
    count = np.diff(numbers_before, prepend=0)
    filled = np.where(count == 0, 2, count & 1)  # numbers of value 0 that make whole pairs, at least one
    codes = np.insert(codes, np.repeat(ends, filled), 0)
    ends = np.cumsum(count + filled) // 2
    numbers, long = _numbers(codes)
    faults[np.searchsorted(ends, long // 2, side="right")] = 3
    runs = numbers.reshape(-1, 2)
    starts = np.concatenate([[0], ends[:-1]])
    first = runs[starts, 0]
    runs[starts, 0] = 0  # no later run is a difference to the first
    sums = np.add.reduceat(runs, starts, axis=0, dtype=np.int32)
    runs[starts[1:]] -= sums[:-1]  # so that the sums begin anew with each mask
    for column in runs.T:
        np.cumsum(column, dtype=np.int32, out=column)
    runs[starts, 0] = first
    runs[ends[filled > 0] - 1, 1] = 0
    if runs.min() < 0:
        negative = np.searchsorted(ends, np.flatnonzero((runs < 0).any(axis=1)), side="right")
        faults[negative[faults[negative] == 0]] = 4
    return runs, ends, faults


def _numbers(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) int32 numbers, and which of them are too long."""
    more = (codes & 32).astype(bool)
    going_on = np.flatnonzero(more)
    numbers = (codes[~more] & 31 ^ 16).astype(np.int32)
    numbers -= 16  # the fifth bit is the sign
    if not len(going_on):
        return numbers, going_on
    of_number = going_on - np.arange(len(going_on))
    starts = np.flatnonzero(np.diff(of_number, prepend=-1))
    characters = np.diff(starts, append=len(of_number))
    place = np.arange(len(of_number)) - np.repeat(starts, characters)
    lower = (codes[going_on] & 31).astype(np.int32) << 5 * np.minimum(place, _MOST_CHARACTERS).astype(np.int32)
    which = of_number[starts]
    numbers[which] <<= 5 * np.minimum(characters, _MOST_CHARACTERS).astype(np.int32)
    numbers[which] += np.add.reduceat(lower, starts, dtype=np.int32)
    return numbers, which[characters >= _MOST_CHARACTERS]


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
        found = measure_run_lengths([counts])
        if found.faults[0]:
            return _FAULTS[int(found.faults[0])]
        total = int(found.covered[0])
    elif isinstance(counts, (list, tuple)) and all(type(run) is int for run in counts):
        if min(counts, default=0) < 0:
            return _FAULTS[4]
        total = sum(counts)
    else:
        return "has counts that are neither a string nor a list of whole numbers"
    pixels = own[0] * own[1]
    return None if total == pixels else f"has runs over {total} pixels, {of} {pixels}"
