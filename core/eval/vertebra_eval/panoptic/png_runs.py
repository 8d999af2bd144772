"""Runs of segment ids straight from a PNG's filtered rows, without making its pixels. Needs numba.

Nearly all bytes of a panoptic PNG are 0 once inflated: the pixel is what its filter expects from its neighbors. So
only the others, and the places where the row above changes, are looked at.
Source: PNG specification, third edition, sections 5 (chunks) and 9 (filters): https://www.w3.org/TR/png-3/
With the package `deflate` (libdeflate) files inflate about ten times as fast as with Python's zlib.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from vertebra_eval.image_types import MAX_PIXELS
from vertebra_eval.panoptic.machine_code import machine_code
from vertebra_eval.png_chunks import SIGNATURE, chunks_of

try:
    import deflate
except ImportError:
    deflate = None  # type: ignore[assignment]  # a module or nothing

__all__ = ["png_id_runs"]

_RGB = (8, 2, 0, 0, 0)  # bit depth, color type, compression, filter method, no interlace
_FEW_RUNS = 8  # pixels in a run, on average; real images have 30 and more
_BROKEN = zlib.error if deflate is None else deflate.DeflateError
_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4  # and 0: none


def png_id_runs(encoded: bytes) -> tuple[tuple[int, int], np.ndarray, np.ndarray] | None:
    """((height, width), first pixel of each run, its id) of a PNG file's bytes; None if this reader is not for it.

    That is any file but a sound one of red, green and blue with 8 bits, not interlaced, of at most MAX_PIXELS.
    """
    found = _rows(encoded)
    if found is None:
        return None
    (height, width), rows = found
    words = rows[: len(rows) // 8 * 8].view(np.uint64)
    room = height * width // _FEW_RUNS + 1  # fresh memory is slow: rather once more in the odd image with more runs
    starts, ids = np.empty((2, room), dtype=np.int64)
    num_runs = _decode(rows, words, height, width, starts, ids)
    if num_runs > room:
        starts, ids = np.empty((2, num_runs), dtype=np.int64)
        _decode(rows, words, height, width, starts, ids)
    return None if num_runs < 0 else ((height, width), starts[:num_runs].copy(), ids[:num_runs].copy())


def _rows(encoded: bytes) -> tuple[tuple[int, int], np.ndarray] | None:
    """(height, width), and the rows' bytes, each row's filter first: (H * (1 + 3 W),) uint8."""
    if encoded[:8] != SIGNATURE or encoded[12:16] != b"IHDR" or len(encoded) < 33:
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", encoded[16:29])
    if tuple(kind) != _RGB or not 0 < width * height <= MAX_PIXELS:
        return None
    parts, name = [], b""
    for name, start, end, right in chunks_of(encoded):
        if not right:
            return None
        if name == b"IDAT":
            parts.append(encoded[start:end])
    if name != b"IEND":
        return None
    size = height * (1 + 3 * width)
    try:
        inflated = _inflate(b"".join(parts), size)
    except (_BROKEN, zlib.error, ValueError):
        return None
    return ((height, width), np.frombuffer(inflated, dtype=np.uint8)) if len(inflated) == size else None


def _inflate(data: bytes, size: int) -> bytes | bytearray:
    """At most `size` bytes, or one more where there are more."""
    if deflate is not None:
        return deflate.zlib_decompress(data, size)
    return zlib.decompressobj().decompress(data, size + 1)


@machine_code
def _decode(  # pragma: no cover - runs as machine code
    rows: np.ndarray, words: np.ndarray, height: int, width: int, starts: np.ndarray, ids: np.ndarray
) -> int:
    """Fill `starts` and `ids` as far as they go; the number of runs, or -1 for a filter that does not exist.

    Args:
        rows: (H * (1 + 3 W),) uint8. words: the same bytes, eight at a time, but for the last few.
        starts, ids: (R,) int64, to be filled.
    """
    above_start, above_id = np.empty(width + 1, np.int64), np.empty(width + 1, np.int64)  # runs of the row above
    row_start, row_id = np.empty(width + 1, np.int64), np.empty(width + 1, np.int64)  # and of this one
    above_start[0], above_id[0], above_start[1] = 0, 0, width
    num_runs, place, last = 0, 0, -1  # place: of the first byte from `at` on that is not 0
    for y in range(height):
        first = y * (1 + 3 * width)  # of this row's bytes
        kind = np.int64(rows[first])
        if kind > _PAETH:
            return -1
        x, k, n, left, corner = 0, 0, 0, 0, 0  # corner: above and left
        while x < width:
            if above_start[k + 1] == x:
                k += 1
            up, end = above_id[k], above_start[k + 1]
            at = first + 1 + 3 * x
            if place < at:
                place = _next_change(rows, words, at)
            change = np.int64(0)
            if place < at + 3:
                change = np.int64(rows[at]) | np.int64(rows[at + 1]) << 8 | np.int64(rows[at + 2]) << 16
                end = x + 1
            else:
                end = min(end, (place - first - 1) // 3)
            # up to `end` the row above is one run and nothing but 0 is added after x, so what x gets goes for all
            if kind == _UP:
                now = _add(up, change)
            elif kind == _SUB:
                now = _add(left, change)
            elif kind == _PAETH:
                now = _add(left if up == corner else up if left == corner else _paeth(left, up, corner), change)
            elif kind == _AVERAGE:  # byte by byte, the mean of two rounded down: not for all, it creeps from left to up
                now, end = _add((left & up) + ((left ^ up) >> 1 & 0x7F7F7F), change), x + 1
            else:
                now = change
            if n == 0 or now != left:
                row_start[n], row_id[n] = x, now
                n += 1
            if now != last:
                if num_runs < len(starts):
                    starts[num_runs], ids[num_runs] = y * width + x, now
                num_runs += 1
                last = now
            left, corner, x = now, up, end
        row_start[n] = width
        above_start, row_start = row_start, above_start
        above_id, row_id = row_id, above_id
    return num_runs


@machine_code
def _next_change(rows: np.ndarray, words: np.ndarray, at: int) -> int:  # pragma: no cover - runs as machine code
    """The first place from `at` on that holds another byte than 0; the number of bytes if there is none."""
    while at % 8 and at < len(rows):
        if rows[at]:
            return at
        at += 1
    word = at // 8
    while word < len(words) and words[word] == 0:
        word += 1
    at = max(at, word * 8)
    while at < len(rows) and not rows[at]:
        at += 1
    return at


@machine_code
def _add(first: int, second: int) -> int:  # pragma: no cover - runs as machine code
    """The three bytes of one id added to those of another, each modulo 256."""
    return (first & 0x7F7F7F) + (second & 0x7F7F7F) ^ (first ^ second) & 0x808080


@machine_code
def _paeth(left: int, up: int, corner: int) -> int:  # pragma: no cover - runs as machine code
    """Of each byte, the neighbor nearest to left + up - corner."""
    expected = 0
    for shift in (0, 8, 16):
        a, b, c = left >> shift & 255, up >> shift & 255, corner >> shift & 255
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        nearest = a if to_a <= to_b and to_a <= to_c else b if to_b <= to_c else c
        expected |= nearest << shift
    return expected
