"""Image readers: files to arrays of any number of channels, of 8 or 16 bits or floats.

A recipe names one as `data.image` (RGB by default), and one for each further image as `data.fields.<name>.reader`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vertebra.data.images.read import read_gray, read_image, read_values
from vertebra.errors import DataError
from vertebra_eval.files import read_bytes
from vertebra_eval.image_types import MAX_PIXELS

__all__ = ["RGB", "ArrayFile", "Bands", "Gray", "ImageReader", "Stacked", "as_tensor", "beside"]

Depth = Literal["uint8", "uint16", "float32"]

HIGHEST = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white by default."""


class ImageReader:
    """A file to pixels. A subclass is registered as a part and sets the attributes.

    Attributes:
        channels: number of channels of every image.
        dtype: `uint8`, `uint16` or `float32`.
        highest: the value of white; values of pictures, gray fill and noise are relative to it.
        shown: the channels that are red, green and blue in pictures for people, counted from 0; None: the first three.
    """

    component_kind: ClassVar[str] = "part"
    channels: int = 3
    dtype: Depth = "uint8"
    highest: float = 255.0
    shown: Sequence[int] | None = None
    suffixes: frozenset[str] = frozenset()
    """Of the files that prediction looks for in folders; empty: of all images."""

    def read(self, path: str | os.PathLike) -> np.ndarray:
        """(H, W, channels) of `dtype`.

        Raises:
            DataError: names the file and what is wrong with it.
        """
        raise NotImplementedError

    def leaders(self, paths: Sequence[Path]) -> list[Path]:
        """Those of a folder's files that stand for an image: all, where each file is one."""
        return list(paths)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, channels) to (H, W, 3) uint8 for people: one channel as gray, otherwise those of `shown`."""
        shown = pixels[..., list(self.shown or (0, 1, 2) if pixels.shape[-1] >= 3 else (0, 0, 0))]
        return (
            shown if shown.dtype == np.uint8 else (shown * (255 / self.highest)).clip(0, 255).round().astype(np.uint8)
        )

    def checked(self, pixels: np.ndarray, path: str | os.PathLike) -> np.ndarray:
        """(H, W, C) with as many channels as said, in `dtype`; nothing is scaled.

        Raises:
            DataError: names the file and what it is instead.
        """
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim != 3 or pixels.shape[-1] != self.channels or 0 in pixels.shape:
            raise DataError(
                f"{path}: {type(self).__name__} read the shape {pixels.shape}, "
                f"expected (height, width, {self.channels})"
            )
        _check_pixels(path, *pixels.shape[:2])
        allowed = {"uint8": ("uint8",), "uint16": ("uint8", "uint16"), "float32": ("float16", "float32", "float64")}
        if pixels.dtype.name not in allowed[self.dtype]:
            raise DataError(
                f"{path}: {type(self).__name__} read {pixels.dtype} values, expected {self.dtype}; "
                "bits or dtype of the reader say what a file has"
            )
        pixels = pixels.astype(self.dtype, copy=False)
        if self.dtype == "float32" and not np.isfinite(pixels).all():
            raise DataError(f"{path}: {int((~np.isfinite(pixels)).sum())} values are not finite (NaN or infinite)")
        return pixels


class RGB(ImageReader):
    """Photographs: (H, W, 3) uint8, upright. Gray and palettes become RGB; 16 bits are scaled; see `read_image`."""

    def read(self, path: str | os.PathLike) -> np.ndarray:
        return read_image(path)


class Gray(ImageReader):
    """One channel of an image file.

    Args:
        bits: 8 or 16. A file of 8 bits counts as one of 16 with its values as they are; the other way is an error.
        highest: the value of white; None: 255 or 65535. 4095 for the 12 bits of many cameras.
    """

    def __init__(self, bits: Literal[8, 16] = 8, highest: float | None = None) -> None:
        self.channels = 1
        self.dtype = "uint8" if bits == 8 else "uint16"
        self.highest = _highest(highest, self.dtype)

    def read(self, path: str | os.PathLike) -> np.ndarray:
        return self.checked(read_gray(path), path)


class Bands(ImageReader):
    """Bands of a TIFF file, whether they are interleaved, planes or pages.

    Args:
        bands: which, counted from 0, in this order; or their number: all of them, no more and no less.
        dtype: of the values.
        highest: the value of white; None: 255, 65535 or 1. 10000 for reflectances of Sentinel-2.
        shown: the bands that are red, green and blue in pictures, counted from 0 among those that are read; None: the
            first three. [3, 2, 1] of Sentinel-2.
    """

    def __init__(
        self,
        bands: int | list[int],
        dtype: Depth = "uint16",
        highest: float | None = None,
        shown: list[int] | None = None,
    ) -> None:
        wanted = list(range(bands)) if isinstance(bands, int) else list(bands)
        if not wanted or min(wanted) < 0:
            raise ValueError(f"Bands needs numbers of bands from 0, or how many there are, got {bands}")
        self.bands, self.all_of = wanted, isinstance(bands, int)
        self.channels = len(wanted)
        self.dtype = dtype
        self.highest = _highest(highest, dtype)
        self.shown = _three(shown, self.channels)

    def read(self, path: str | os.PathLike) -> np.ndarray:
        pixels = _read_tiff(path)
        count = pixels.shape[-1]
        if max(self.bands) >= count or (self.all_of and count != self.channels):
            raise DataError(f"{path}: the file has {count} bands, expected {self._expected()}")
        return self.checked(pixels if self.all_of else pixels[..., self.bands], path)

    def _expected(self) -> str:
        return f"{self.channels}" if self.all_of else f"more than {max(self.bands)}"


class ArrayFile(ImageReader):
    """An array in a .npy file.

    Args:
        channels: number of channels; (H, W) will do for one.
        channels_first: the array is (C, H, W) and not (H, W, C).
        dtype: of the values.
        highest: the value of white; None: 255, 65535 or 1.
        shown: the channels that are red, green and blue in pictures, counted from 0; None: the first three.
    """

    suffixes = frozenset((".npy",))

    def __init__(
        self,
        channels: int,
        channels_first: bool = False,
        dtype: Depth = "float32",
        highest: float | None = None,
        shown: list[int] | None = None,
    ) -> None:
        if channels < 1:
            raise ValueError(f"ArrayFile needs at least one channel, got {channels}")
        self.channels, self.channels_first = channels, channels_first
        self.dtype = dtype
        self.highest = _highest(highest, dtype)
        self.shown = _three(shown, channels)

    def read(self, path: str | os.PathLike) -> np.ndarray:
        if Path(path).suffix.lower() != ".npy":
            raise DataError(f"{path}: ArrayFile reads .npy files; write the array with numpy.save")
        pixels = read_values(path)
        if self.channels_first and pixels.ndim == 3:
            pixels = pixels.transpose(1, 2, 0)
        return self.checked(pixels, path)


class Stacked(ImageReader):
    """The channels of several files, one behind the other.

    Args:
        readers: of each file; all of one dtype and highest value.
        files: of each, its name beside the named file: `{stem}` and `{suffix}` are those of the named file's name.
            The first is usually `"{stem}{suffix}"`.
    """

    def __init__(self, readers: list[ImageReader], files: list[str]) -> None:
        if not readers or len(readers) != len(files):
            raise ValueError(f"Stacked needs as many files as readers, got {len(files)} and {len(readers)}")
        first = readers[0]
        if any((one.dtype, one.highest) != (first.dtype, first.highest) for one in readers):
            raise ValueError("Stacked needs readers of one dtype and one highest value")
        self.readers, self.files = readers, files
        self.channels = sum(one.channels for one in readers)
        self.dtype, self.highest = first.dtype, first.highest
        self.suffixes = frozenset().union(*(one.suffixes for one in readers))

    def read(self, path: str | os.PathLike) -> np.ndarray:
        files = self._files_of(Path(path))
        parts = [reader.read(file) for reader, file in zip(self.readers, files, strict=True)]
        sizes = {part.shape[:2] for part in parts}
        if len(sizes) > 1:
            raise DataError(f"{path}: the files that are stacked have different sizes: {sorted(sizes)} (height, width)")
        return np.concatenate(parts, axis=-1)

    def leaders(self, paths: Sequence[Path]) -> list[Path]:
        """Without the files that are read together with another."""
        partners = {file for path in paths for file in self._files_of(path) if file != path}
        return [path for path in paths if path not in partners]

    def _files_of(self, named: Path) -> list[Path]:
        return [beside(named, file) for file in self.files]


def beside(named: Path, file: str) -> Path:
    """The file that a pattern means, seen from a named file: `{stem}` and `{suffix}` are those of its name."""
    return named.parent / file.replace("{stem}", named.stem).replace("{suffix}", named.suffix)


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) to (C, H, W), a view: channels stay last in memory, which resizes faster. uint16 becomes int32, as
    torch computes with."""
    pixels = pixels.astype(np.int32) if pixels.dtype == np.uint16 else np.require(pixels, requirements=["C", "W"])
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _highest(written: float | None, dtype: Depth) -> float:
    if written is not None and not 0 < written < math.inf:
        raise ValueError(f"the highest value must be a number above 0, got {written}")
    return HIGHEST[dtype] if written is None else float(written)


def _three(shown: list[int] | None, channels: int) -> list[int] | None:
    if shown is not None and (len(shown) != 3 or not all(0 <= one < channels for one in shown)):
        raise ValueError(f"shown needs three numbers from 0 to {channels - 1}, got {shown}")
    return shown


def _read_tiff(path: str | os.PathLike) -> np.ndarray:
    """(H, W, bands) of all full-size images in a TIFF file: one of several bands, or pages of one band each."""
    import tifffile

    try:
        with _quiet("tifffile"), tifffile.TiffFile(io.BytesIO(read_bytes(path))) as file:
            series = [one for one in file.series if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
            for one in series:
                _check_pixels(path, one.shape[one.axes.index("Y")], one.shape[one.axes.index("X")])
            found = [_bands_last(one.asarray(), one.axes) for one in series]
            return np.concatenate(found, axis=-1)
    except DataError:
        raise
    except Exception as err:  # a decoder that raises, in whatever way, says that the file is damaged
        hint = "; `pip install imagecodecs` reads further compressions" if "imagecodecs" in str(err) else ""
        raise DataError(f"{path}: cannot be read as TIFF ({err}){hint}") from err


def _bands_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    pixels = np.moveaxis(pixels, (axes.index("Y"), axes.index("X")), (0, 1))
    return pixels.reshape(*pixels.shape[:2], -1)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without the lines that a library logs about a damaged file, beside what it raises."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_pixels(path: str | os.PathLike, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DataError(f"{path}: {width}x{height} pixels; at most {MAX_PIXELS:,} can be read. Cut it into tiles")
