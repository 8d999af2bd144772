"""Which image files are read, and how large they may be."""

from __future__ import annotations

import functools

from PIL import Image

__all__ = ["MAX_PIXELS", "image_formats", "image_suffixes"]

MAX_PIXELS = 178_956_970
"""Larger images are refused by their header: Pillow's own limit against decompression bombs, 512 MiB as RGB."""

_FORMATS: tuple[str, ...] = (
    "AVIF",
    "BMP",
    "DDS",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
)
_FORMATS += ("TGA", "TIFF", "WEBP")  # Pillow's names; not those that need other programs, or that draw (EPS, PDF, WMF)


@functools.cache
def image_formats() -> tuple[str, ...]:
    """The types of image files that are read, by Pillow's names."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The file name endings of these types, in small letters, with the dot."""
    return frozenset(end for end, name in Image.registered_extensions().items() if name in (*image_formats(), "MPO"))
