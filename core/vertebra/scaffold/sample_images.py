"""A few pictures and a table of the boxes in them, for a new dataset format to read: no file of others, no library."""

from __future__ import annotations

import random
import struct
import zlib

__all__ = ["sample_files"]

_SIZE = 96  # pixels, both sides
_SIDES = {"square": (24, 24), "bar": (48, 12)}  # width and height of an object of each class


def sample_files(images: int = 8) -> dict[str, bytes]:
    """{name: content}: `0.png`, ... with up to two objects each, the last one with none, and `boxes.csv`."""
    rng = random.Random(0)
    lines, files = ["image,x0,y0,x1,y1,class"], {}
    for number in range(images):
        name = f"{number}.png"
        pixels = [bytearray(rng.randrange(60, 100) for _ in range(3 * _SIZE)) for _ in range(_SIZE)]
        for half in range(2 if number < images - 1 else 0):  # one object in the upper half, one in the lower
            kind = rng.choice(list(_SIDES))
            width, height = _SIDES[kind]
            left, top = rng.randrange(_SIZE - width), rng.randrange(_SIZE // 2 - height) + half * _SIZE // 2
            for row in pixels[top : top + height]:
                row[3 * left : 3 * (left + width)] = bytes((230, 180, 60)) * width
            lines.append(f"{name},{left},{top},{left + width},{top + height},{kind}")
        if number == images - 1:
            lines.append(f"{name},,,,,")
        files[name] = _png(pixels)
    return {**files, "boxes.csv": ("\n".join(lines) + "\n").encode()}


def _png(rows: list[bytearray]) -> bytes:
    """An RGB image of 8 bits (PNG specification, sections 5 and 11)."""
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
