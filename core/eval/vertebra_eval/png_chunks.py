"""The chunks of a PNG file and their checksums, which Pillow does not compare for pixels.

Format: https://www.w3.org/TR/png-3, section 5.3.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

__all__ = ["SIGNATURE", "chunks_of", "png_fault"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks_of(encoded: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """(name, start and end of its data in the file, whether its checksum is right) of each whole chunk up to IEND."""
    if not encoded.startswith(SIGNATURE):
        return
    view, place, name = memoryview(encoded), len(SIGNATURE), b""
    while name != b"IEND" and len(encoded) >= place + 12:
        length, name = int.from_bytes(view[place : place + 4], "big"), bytes(view[place + 4 : place + 8])
        start, end = place + 8, place + 8 + length
        if len(encoded) < end + 4:
            return
        checksum = int.from_bytes(view[end : end + 4], "big")
        yield name, start, end, zlib.crc32(view[place + 4 : end]) == checksum
        place = end + 4


def png_fault(encoded: bytes) -> str | None:
    """What is wrong with the checksums of a PNG, or None. Those of additional and of empty chunks do not count."""
    for name, start, end, right in chunks_of(encoded):
        if not right and name[:1].isupper() and end > start:
            return f"the checksum of its chunk {name.decode('latin-1')!r} at byte {start - 8} is wrong"
    return None
