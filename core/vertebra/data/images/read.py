"""Image files to uint8 RGB arrays, label files to label arrays. Whatever is wrong becomes a DataError with the path.

Pillow alone decodes: on 640x480 photographs it gave 910 images/s on one core, torchvision.io 1170 with equal pixels,
which is little beside a training step and not worth a second decoder with its own conventions. JPEG's scaled decoding
("draft") is not used because its pixels differ from a full decode followed by a resize.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vertebra.data.images.content import (
    check_content,
    has_16_bits_a_color,
    is_transparent,
    refuse_narrow,
    why_not_a_tiff,
)
from vertebra.data.images.oddities import tell_oddity
from vertebra.errors import DataError
from vertebra_eval.files import check_regular, open_regular, read_bytes
from vertebra_eval.image_types import MAX_PIXELS, image_formats, image_suffixes
from vertebra_eval.png_chunks import png_fault

__all__ = [
    "MAX_PIXELS",
    "image_formats",
    "image_orientation",
    "image_size",
    "image_suffixes",
    "read_gray",
    "read_image",
    "read_labels",
    "read_values",
]

_ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
_TURNS = {  # EXIF orientation -> how to turn the stored pixels so that they are upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | os.PathLike, order: Literal["rgb", "bgr"] = "rgb") -> np.ndarray:
    """One image file to (H, W, 3) uint8, upright.

    EXIF orientation is applied (a value that is not legal counts as upright). Gray, 1-bit, palette and CMYK become RGB;
    alpha is dropped, the colors beneath it stay; 16 bits are scaled from 0..65535 to 0..255. Transparent pixels and
    16 bits are logged (`image_oddities`).

    Raises:
        DataError: not there, not an image, damaged, cut short, of more than MAX_PIXELS, of float pixels, of several
            frames, with channels that are neither colors nor alpha, or with 10- or 12-bit values in 16 bits.
    """
    with _open(path, pixels=True) as image:
        try:
            deep = has_16_bits_a_color(image, path)
            if is_transparent(image):
                tell_oddity("alpha", str(path))
            image = _to_rgb(_upright(image), path)
            pixels = np.array(image)  # (H, W, 3), a copy of its own that torch may write to
            if deep:
                refuse_narrow(path, int(pixels.max()) << 8)
                tell_oddity("16 bits", str(path))
        except DataError:
            raise
        except Exception as err:  # a decoder that raises, in whatever way, says that the file is damaged
            raise DataError(
                f"{path}: damaged image ({_reason(err)}); replace the file or remove it from the dataset"
            ) from err
    return np.ascontiguousarray(pixels[:, :, ::-1]) if order == "bgr" else pixels


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) in pixels as `read_image` would give it, read from the header alone."""
    with _open(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def image_orientation(path: str | os.PathLike) -> int:
    """EXIF orientation 1..8 of an image file; 1, upright, where there is none."""
    with _open(path) as image:
        return _orientation(image)


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """One label file (a PNG with one label per pixel) to (H, W): uint8, or int32 where the file has 16 bits.

    A palette image gives its indices, which is how Pascal VOC stores labels. No value is changed.

    Raises:
        DataError: as for `read_image`, and an image with more than one channel, or compressed as JPEG.
    """
    with _open(path, pixels=True) as image:
        if image.format in ("JPEG", "MPO"):
            raise DataError(
                f"{path}: labels cannot be read from a JPEG, whose compression changes numbers and borders; save them "
                "as PNG, from the original and not from this file"
            )
        if image.mode not in ("L", "P", "1", "I", "I;16", "I;16L", "I;16B"):
            raise DataError(f"{path}: labels need one channel, this image has mode {image.mode}; {_instead(image)}")
        try:
            labels = np.array(image)
        except Exception as err:
            raise DataError(f"{path}: damaged label image ({_reason(err)})") from err
    return labels.astype(np.uint8 if labels.dtype.itemsize == 1 else np.int32)


def read_gray(path: str | os.PathLike) -> np.ndarray:
    """An image of one channel to (H, W) uint8, or uint16 where the file has 16 bits. Palettes and 1 bit become gray.

    Raises:
        DataError: as for `read_image`, and an image with more than one channel.
    """
    with _open(path, pixels=True) as image:
        if image.mode not in ("L", "P", "1", "I", "I;16", "I;16L", "I;16B"):
            raise DataError(
                f"{path}: one channel is needed, this image has mode {image.mode}; convert it to gray first"
            )
        try:
            image = _upright(image)
            gray = np.array(image.convert("L") if image.mode in ("P", "1") else image)
        except Exception as err:
            raise DataError(f"{path}: damaged image ({_reason(err)})") from err
    if gray.dtype == np.uint8:
        return gray
    if gray.min() < 0 or gray.max() >= 1 << 16:
        raise DataError(f"{path}: values from {gray.min()} to {gray.max()}, which 16 bits do not hold")
    return gray.astype(np.uint16)


def read_values(path: str | os.PathLike) -> np.ndarray:
    """An image or .npy file to (H, W) or (C, H, W), every value as it is: 8 or 16 bits, int32 or float32 of TIFF files.

    Raises:
        DataError: as for `read_image`; an array of Python objects.
    """
    if Path(path).suffix.lower() == ".npy":
        try:
            values = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        except Exception as err:  # numpy raises whatever a damaged header makes it do
            raise DataError(f"{path}: cannot be read as .npy ({_reason(err)}); write it with numpy.save") from err
        if not isinstance(values, np.ndarray):
            raise DataError(f"{path}: holds several arrays (.npz); write one with numpy.save")
        return values
    with _open(path, pixels=True) as image:
        try:
            values = np.array(_upright(image))
        except Exception as err:
            raise DataError(f"{path}: damaged image ({_reason(err)})") from err
    return values.transpose(2, 0, 1) if values.ndim == 3 else values


def _instead(image: Image.Image) -> str:
    """How a mask of several channels can be used."""
    with contextlib.suppress(Exception):  # damaged behind its header: the advice for colors will do
        channels = np.array(image.convert("RGB"))
        if (channels == channels[..., :1]).all():
            return "its channels are equal: save one of them as an 8-bit gray PNG"
    return (
        "if its colors stand for classes, list them in the dataset's block (format semantic_folder), as "
        "colors: [[0, 0, 0], [128, 0, 0]]; otherwise save the numbers of the classes as an 8-bit gray PNG"
    )


def _open(path: str | os.PathLike, *, pixels: bool = False) -> Image.Image:
    """Open the file and read its header; the size is checked before any pixel is decoded.

    Args:
        pixels: they will be read, so checksums of the whole file are compared.
    """
    try:
        check_regular(path)
        image = Image.open(path, formats=image_formats())
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such image file") from err
    except Image.DecompressionBombError as err:
        raise DataError(f"{path}: {_too_large(str(err))}") from err
    except Exception as err:
        raise DataError(f"{path}: {_why_not_an_image(Path(path), err)}") from err
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(f"{path}: {_too_large(f'{width}x{height} pixels')}")
    try:
        if pixels and image.format == "PNG" and (fault := png_fault(read_bytes(path))):
            raise DataError(f"{path}: damaged: {fault}. Copy or download it again")
        check_content(image, path)
    except BaseException:
        image.close()
        raise
    return image


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or where it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF beside sound pixels: as most viewers do, show the pixels as they are stored
        return 1
    return value if value in _TURNS else 1


def _to_rgb(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    if image.mode.startswith("I"):  # I;16 and, in older Pillow, I: 16-bit gray
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{path}: gray values {values.min()}..{values.max()} do not fit in 16 bits")
        if values.max() > 0 and image.format != "PPM":  # whose header says which value is white
            refuse_narrow(path, int(values.max()))
        tell_oddity("16 bits", str(path))
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise DataError(f"{path}: float pixels have no fixed range; convert the file to 8 or 16 bits first")
    return image if image.mode == "RGB" else image.convert("RGB")


def _why_not_an_image(path: Path, err: Exception) -> str:
    try:
        with open_regular(path) as file:
            head = file.read(64).lstrip()
    except OSError as cause:
        return f"cannot be read ({cause.strerror or _reason(err)})"
    if not head:
        return "the file is empty"
    if head.startswith(b"<"):
        return "not an image but HTML or XML text, perhaps an error page that was downloaded"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return why_not_a_tiff(path)
    return f"not an image, its header is damaged, or its type is not one of {', '.join(image_formats())}"


def _too_large(what: str) -> str:
    return f"too large ({what}); the limit is {MAX_PIXELS} pixels. Cut it into tiles"


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {err}"
