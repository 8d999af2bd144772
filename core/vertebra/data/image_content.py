"""What an opened image file holds besides one picture of gray or RGB in 8 bits: frames, channels, alpha, 16 bits."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageFile, TiffImagePlugin

from vertebra.data.image_oddities import tell_oddity
from vertebra.errors import DataError
from vertebra.regular_files import open_regular

__all__ = ["check_content", "has_16_bits_a_color", "is_transparent", "refuse_narrow", "why_not_a_tiff"]

_SUBFILE_TAG, _BITS_TAG, _SAMPLES_TAG, _EXTRA_TAG = 254, 258, 277, 338  # TIFF 6.0, sections 8 and 18
_NARROW = 4096  # a file of 16 bits with values below it alone holds 12 bits or fewer


def check_content(image: Image.Image, path: str | os.PathLike) -> None:
    """Refuses files that hold more than an image has room for: what it would drop may be what was meant.

    Raises:
        DataError: several frames or pages, channels that are neither colors nor alpha, or a damaged directory of them.
    """
    try:
        frames = getattr(image, "n_frames", 1)
        pictures = 1 if frames == 1 else _full_pictures(image, frames)
        channels, read = _channels(image)
    except Exception as err:
        raise DataError(f"{path}: damaged image ({type(err).__name__}: {err}); replace the file") from err
    if pictures > 1:
        raise DataError(
            f"{path}: holds {pictures} frames or pages, and an image is one; "
            "save each that is meant as a file of its own"
        )
    if frames > 1:
        tell_oddity("previews", str(path))
    if channels > read:
        raise DataError(
            f"{path}: has {channels} channels, of which only {read} ({image.mode}) are known to be colors or alpha; "
            "write the three that are meant into an RGB file"
        )


def _full_pictures(image: Image.Image, frames: int) -> int:
    """The frames that are pictures of their own: not a camera's previews (MPO), nor a TIFF's reduced copies."""
    if image.format == "MPO":
        return 1
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return frames
    full = 0
    for number in range(frames):
        image.seek(number)
        full += not image.tag_v2.get(_SUBFILE_TAG, 0) & 1
    image.seek(0)
    return max(full, 1)


def _channels(image: Image.Image) -> tuple[int, int]:
    """The number of channels of the file, and of those that Pillow reads."""
    read = len(image.getbands())
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return read, read
    extra = image.tag_v2.get(_EXTRA_TAG, ())
    unknown = sum(kind == 0 for kind in (extra if isinstance(extra, tuple) else (extra,)))
    channels = image.tag_v2.get(_SAMPLES_TAG, 1)
    return channels, min(read, channels - unknown)


def has_16_bits_a_color(image: Image.Image) -> bool:
    """Whether a file of several channels has 16 bits each, of which Pillow keeps the upper 8 alone. Before decoding."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    arguments = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in tiles]
    return len(image.getbands()) > 1 and any(";16" in str(one) for group in arguments for one in group)


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
    """Raises DataError where `highest`, the largest value of a file of 16 bits, has 12 bits or fewer (but is not 0)."""
    if 0 < highest < _NARROW:
        raise DataError(
            f"{path}: no value reaches {_NARROW} in a file of 16 bits, so they seem to have 12 bits or fewer; scaled "
            "as 16 bits the image would be nearly black.\n"
            f"  Convert such files to 8 bits, all in the same way, for example value * 255 / {_NARROW - 1}"
        )


def why_not_a_tiff(path: Path) -> str:
    """What a TIFF file that Pillow does not read holds, by its header."""
    try:
        with open_regular(path) as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        channels, bits = tags.get(_SAMPLES_TAG, 1), tags.get(_BITS_TAG, (1,))
    except Exception:
        return "a TIFF file whose header is damaged"
    return f"a TIFF file of {channels} channels of {bits[0]} bits, which cannot be read; write an RGB file of 8 bits"
