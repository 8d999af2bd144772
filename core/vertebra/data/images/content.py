"""What an opened image file holds besides one picture of gray or RGB in 8 bits: frames, channels, alpha, 16 bits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFile, TiffImagePlugin

from vertebra.data.images.oddities import tell_oddity
from vertebra.errors import DataError
from vertebra_eval.files import open_regular

__all__ = ["check_content", "has_16_bits_a_color", "is_transparent", "refuse_narrow", "why_not_a_tiff"]

_SUBFILE_TAG, _BITS_TAG, _SAMPLES_TAG, _EXTRA_TAG = 254, 258, 277, 338  # TIFF 6.0, sections 8 and 18
_COPY_OR_MASK = 1 | 4  # of the subfile tag
_BIG_TIFF = 43
_JPEG2000_HEAD = 4096  # bytes; ISO/IEC 15444-1
_NARROW = 4096  # a file of 16 bits with values below it alone holds 12 bits or fewer


def check_content(image: Image.Image, path: str | os.PathLike) -> None:
    """Refuses files that hold more than an image has room for: what it would drop may be what was meant.

    Raises:
        DataError: several frames or pages, channels that are neither colors nor alpha, or a damaged directory of them.
    """
    try:
        frames, pictures, first_is_full = _pages(image, path)
        channels, read = _channels(image)
    except Exception as err:
        raise DataError(f"{path}: damaged image ({type(err).__name__}: {err}); replace the file") from err
    if pictures > 1:
        raise DataError(
            f"{path}: holds {pictures} frames or pages, and an image is one; "
            "save each that is meant as a file of its own"
        )
    if not first_is_full:
        raise DataError(f"{path}: its first page is a reduced copy of another; save that one as a file of its own")
    if frames > 1:
        tell_oddity("previews", str(path))
    if channels > read:
        raise DataError(
            f"{path}: has {channels} channels, of which only {read} ({image.mode}) are known to be colors or alpha; "
            "write the three that are meant into an RGB file"
        )


def _pages(image: Image.Image, path: str | os.PathLike) -> tuple[int, int, bool]:
    """The number of frames, that of those which are pictures of their own, and whether the first one is.

    A camera's previews (MPO) are not, nor are the reduced copies and masks of a TIFF file.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        frames = getattr(image, "n_frames", 1)
        return frames, 1 if image.format == "MPO" else frames, True
    kinds = [tags.get(_SUBFILE_TAG, 0) for tags in _directories(path)]
    full = [not kind & _COPY_OR_MASK for kind in kinds]
    return len(kinds), max(sum(full), 1), full[0] or not any(full)


def _directories(path: str | os.PathLike) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """The directory of tags of each page of a TIFF file."""
    with open_regular(path) as file:
        head = file.read(8)
        if _BIG_TIFF in head[2:4]:
            head += file.read(8)
        tags, seen = TiffImagePlugin.ImageFileDirectory_v2(head), set()
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            file.seek(tags.next)
            tags.load(file)
            yield tags


def _channels(image: Image.Image) -> tuple[int, int]:
    """The number of channels of the file, and of those that Pillow reads."""
    read = len(image.getbands())
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return read, read
    extra = image.tag_v2.get(_EXTRA_TAG, ())
    unknown = sum(kind == 0 for kind in (extra if isinstance(extra, tuple) else (extra,)))
    channels = image.tag_v2.get(_SAMPLES_TAG, 1)
    return channels, min(read, channels - unknown)


def has_16_bits_a_color(image: Image.Image, path: str | os.PathLike) -> bool:
    """Whether a file of several channels has 16 bits each, of which Pillow keeps the upper 8 alone. Before decoding."""
    if len(image.getbands()) == 1 or not isinstance(image, ImageFile.ImageFile):
        return False
    if image.format == "JPEG2000":
        with open_regular(path) as file:
            head = file.read(_JPEG2000_HEAD)
        place = head.find(b"\xff\x51") + 40  # marker SIZ, and in it Ssiz, the bits of the first channel less 1 (A.5.1)
        return 40 <= place < len(head) and head[place] & 127 == 15
    arguments = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in image.tile]
    return any(re.search(";16[BLN]", str(one)) for group in arguments for one in group)


def is_transparent(image: Image.Image) -> bool:
    """Whether a pixel is not fully opaque."""
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
    elif image.mode == "PA" or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return False
    return alpha.histogram()[255] < alpha.width * alpha.height


def refuse_narrow(path: str | os.PathLike, highest: int) -> None:
    """Raises DataError where `highest`, the largest value of a file of 16 bits, has 12 bits or fewer."""
    if highest < _NARROW:
        raise DataError(
            f"{path}: no value reaches {_NARROW} in a file of 16 bits, so they seem to have 12 bits or fewer; scaled "
            "as 16 bits the image would be nearly black.\n"
            f"  Convert such files to 8 bits, all in the same way, for example value * 255 / {_NARROW - 1}"
        )


def why_not_a_tiff(path: Path) -> str:
    """What a TIFF file that Pillow does not read holds, by its header."""
    try:
        tags = next(_directories(path))
        channels, bits = tags.get(_SAMPLES_TAG, 1), tags.get(_BITS_TAG, (1,))
    except Exception:
        return "a TIFF file whose header is damaged"
    return f"a TIFF file of {channels} channels of {bits[0]} bits, which cannot be read; write an RGB file of 8 bits"
