"""Segment ids of an image as runs of equal neighbors, which is what they mostly are; read from and written to PNG.

Format: https://cocodataset.org/#format-results, section 4. A pixel's color (R, G, B) is the id R + 256 G + 65536 B.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra_eval.errors import DataError
from vertebra_eval.files import open_whole, read_bytes
from vertebra_eval.image_types import MAX_PIXELS
from vertebra_eval.png_chunks import png_fault

__all__ = ["IdRuns", "common_pixels", "id_run_reader", "read_id_runs", "write_segment_ids"]

_ID_BITS = 32  # two ids side by side in a 64-bit key
_MANY_FILES = 500  # numba takes about a second to start, and then saves some 1.5 ms a file


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
        changed = np.flatnonzero(flat[3:] != flat[:-3]) // 3 + 1  # up to three bytes of a pixel differ, in order
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


def common_pixels(first: IdRuns, second: IdRuns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first id, second id, number of pixels) of each combination that occurs, ascending; three int64 arrays."""
    starts = np.concatenate((first.starts, second.starts))
    order = np.argsort(starts, kind="stable")  # merges two ascending halves in linear time
    of_first = order < len(first.starts)
    starts = starts[order]
    last = np.ones(len(starts), dtype=bool)  # where both begin a run, it is one start
    last[:-1] = starts[1:] != starts[:-1]
    lengths = np.diff(starts[last], append=first.size[0] * first.size[1])
    first_ids = first.ids[np.cumsum(of_first)[last] - 1]
    second_ids = second.ids[np.cumsum(~of_first)[last] - 1]
    keys = first_ids.astype(np.uint64) << np.uint64(_ID_BITS) | second_ids.astype(np.uint64)
    pairs = np.unique(keys, return_counts=True)[0]  # and a search in them: half the time of return_inverse
    pixels = np.bincount(np.searchsorted(pairs, keys), weights=lengths, minlength=len(pairs)).astype(np.int64)
    low = np.uint64(2**_ID_BITS - 1)
    return (pairs >> np.uint64(_ID_BITS)).astype(np.int64), (pairs & low).astype(np.int64), pixels


def read_id_runs(path: str | os.PathLike) -> IdRuns:
    """The ids in a panoptic PNG.

    Raises:
        DataError: not there, damaged, too large, not a PNG, or not one with red, green and blue of 8 bits.
    """
    try:
        encoded = read_bytes(path)
        if fault := png_fault(encoded):
            raise DataError(f"{path}: damaged panoptic PNG: {fault}")
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
    except Exception as err:
        raise DataError(f"{path}: damaged panoptic PNG ({str(err).splitlines()[0]})") from err
    return IdRuns.of_colors(colors[..., :3])


def id_run_reader(num_files: int) -> Callable[[str | os.PathLike], IdRuns]:
    """`read_id_runs`; for many files, if numba is installed, one that is several times as fast and reads the same."""
    if num_files < _MANY_FILES:
        return read_id_runs
    try:
        from vertebra_eval.panoptic.png_runs import png_id_runs
    except ImportError:
        return read_id_runs

    def read(path: str | os.PathLike) -> IdRuns:
        try:
            found = png_id_runs(read_bytes(path))
        except OSError:
            found = None
        return read_id_runs(path) if found is None else IdRuns(*found)  # it knows what is wrong with a file

    return read


def write_segment_ids(ids: np.ndarray, path: Path) -> None:
    """(H, W) segment ids below 2^24 to a panoptic PNG."""
    channels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
    with open_whole(path) as file:
        Image.fromarray(channels).save(file, format="PNG", compress_level=1)
