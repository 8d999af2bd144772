"""Segment ids of an image as runs of equal neighbors, which is what they mostly are; read from and written to PNG.

Format: https://cocodataset.org/#format-results, section 4. A pixel's color (R, G, B) is the id R + 256 G + 65536 B.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vertebra_eval.errors import DataError
from vertebra_eval.files import open_whole, read_bytes
from vertebra_eval.image_types import MAX_PIXELS
from vertebra_eval.png_chunks import png_fault

__all__ = ["IdRuns", "common_runs", "read_id_runs", "write_segment_ids"]

_HEADER = 33  # bytes up to the end of a PNG's first chunk
_RGB = (8, 2, 0, 0, 0)  # bit depth, color type, compression, filter method, no interlace


@dataclass(frozen=True)
class IdRuns:
    """Segment ids of H x W pixels, row after row, in R runs.

    Args:
        size: (height, width).
        starts: (R,) int64 pixel number at which a run begins, ascending, the first 0.
        ids: (R,) int64 segment id of a run.
    """

    size: tuple[int, int]
    starts: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray) -> IdRuns:
        """From an id for each pixel, (H, W) whole numbers."""
        flat = ids.reshape(-1)
        starts = np.flatnonzero(np.concatenate(([len(flat) > 0], flat[1:] != flat[:-1])))
        return cls(ids.shape, starts, flat[starts].astype(np.int64))

    @classmethod
    def of_colors(cls, colors: np.ndarray) -> IdRuns:
        """From (H, W, 3) uint8 red, green, blue."""
        flat = np.ascontiguousarray(colors).reshape(-1)
        changed = _changed_bytes(flat, flat[3:]) // 3 + 1  # up to three bytes of a pixel differ, in order
        keep = np.ones(len(changed), dtype=bool)
        keep[1:] = changed[1:] != changed[:-1]
        starts = np.concatenate((np.zeros(int(len(flat) > 0), dtype=np.int64), changed[keep]))
        return cls(colors.shape[:2], starts, flat.reshape(-1, 3)[starts].astype(np.int64) @ (1, 256, 65536))

    def present(self) -> np.ndarray:
        """The ids that occur, ascending."""
        return np.unique(self.ids, return_counts=True)[0]  # without counts, numpy takes a slower way

    def pixels(self) -> np.ndarray:
        """(H, W) int64 ids."""
        lengths = np.diff(self.starts, append=self.size[0] * self.size[1])
        return np.repeat(self.ids, lengths).reshape(self.size)


def _changed_bytes(flat: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Ascending places where the bytes of two arrays differ, as far as `other` goes, compared eight at a time."""
    words, size = len(other) // 8, len(other)
    differ = np.flatnonzero(flat[: 8 * words].view(np.uint64) != other[: 8 * words].view(np.uint64))
    places = (8 * differ[:, None] + np.arange(8)).reshape(-1)
    places = np.concatenate((places, np.arange(8 * words, size)))
    return places[flat[places] != other[places]]


def common_runs(first: IdRuns, second: IdRuns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(run of the first, run of the second, pixels) of each stretch in which neither changes; three int64 arrays."""
    starts = np.concatenate((first.starts, second.starts))
    order = np.argsort(starts, kind="stable")  # merges two ascending halves in linear time
    of_first = order < len(first.starts)
    starts = starts[order]
    last = np.ones(len(starts), dtype=bool)  # where both begin a run, it is one start
    last[:-1] = starts[1:] != starts[:-1]
    lengths = np.diff(starts[last], append=first.size[0] * first.size[1])
    before = np.cumsum(of_first)  # runs of the first up to each start
    return before[last] - 1, (np.arange(1, len(starts) + 1) - before)[last] - 1, lengths


def read_id_runs(path: str | os.PathLike) -> IdRuns:
    """The ids in a panoptic PNG.

    Raises:
        DataError: not there, damaged, too large, not a PNG, or not one with red, green and blue of 8 bits.
    """
    try:
        encoded = read_bytes(path)
        if fault := png_fault(encoded):
            raise DataError(f"{path}: damaged panoptic PNG: {fault}")
        if (pixels := _fast_pixels(encoded)) is not None:
            return IdRuns.of_colors(pixels)
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as image:  # reads the header
            mode, (width, height) = image.mode, image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width}x{height} pixels are more than the {MAX_PIXELS} that are read")
            if mode not in ("RGB", "RGBA"):
                raise DataError(
                    f"{path}: a panoptic PNG has red, green and blue of 8 bits, this one has mode {mode}; "
                    "write ids as R + 256 G + 65536 B"
                )
            colors = np.asarray(image)  # (H, W, C)
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such panoptic PNG") from err
    except DataError:
        raise
    except UnidentifiedImageError as err:
        raise DataError(f"{path}: damaged panoptic PNG, or none at all") from err
    except Exception as err:
        raise DataError(f"{path}: damaged panoptic PNG ({str(err).splitlines()[0]})") from err
    return IdRuns.of_colors(colors[..., :3])


def _fast_pixels(encoded: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 by kornia-rs, which needs half of Pillow's time; None where it is not installed or cannot."""
    decode = _fast_decoder()
    if decode is None or len(encoded) < _HEADER or encoded[12:16] != b"IHDR":
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", encoded[16:29])
    if tuple(kind) != _RGB or not 0 < width * height <= MAX_PIXELS:
        return None
    try:
        return decode(encoded, (height, width), "rgb")
    except Exception:  # of its own kind; Pillow says what is wrong
        return None


@cache
def _fast_decoder() -> Callable[[bytes, tuple[int, int], str], np.ndarray] | None:
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    return decode_image_png_u8


def write_segment_ids(ids: np.ndarray, path: Path) -> None:
    """(H, W) segment ids below 2^24 to a panoptic PNG."""
    channels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
    with open_whole(path) as file:
        Image.fromarray(channels).save(file, format="PNG", compress_level=1)
