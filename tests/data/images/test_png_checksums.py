"""A PNG with a flipped bit is refused by every reader: Pillow does not compare the checksums of pixels by itself."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vertebra.data.images.read import image_size, read_image, read_labels
from vertebra.errors import DataError
from vertebra_eval.panoptic.runs import read_id_runs
from vertebra_eval.png_chunks import chunks_of, png_fault

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
READERS = {
    "read_image": (read_image, COLORS),
    "read_labels": (read_labels, COLORS[..., 0] % 5),
    "read_id_runs": (read_id_runs, COLORS),
}


def encoded(pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", READERS)
def test_every_flipped_bit_of_the_pixels_is_noticed(tmp_path, name):
    read, pixels = READERS[name]
    path = tmp_path / "image.png"
    whole = encoded(pixels)
    path.write_bytes(whole)
    read(path)
    _, start, end, _ = next(chunk for chunk in chunks_of(whole) if chunk[0] == b"IDAT")
    for place in RNG.integers(start, end + 4, 60):
        data = bytearray(whole)
        data[place] ^= 1 << int(RNG.integers(8))
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"image\.png: damaged.*: the checksum of its chunk 'IDAT' at byte"):
            read(path)


def test_the_size_is_read_from_the_header_alone(tmp_path):
    data = bytearray(encoded(COLORS))
    data[-20] ^= 1
    (tmp_path / "image.png").write_bytes(data)
    assert image_size(tmp_path / "image.png") == (20, 30)


def chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def test_checksums_of_additional_chunks_are_left_to_the_decoder():
    whole = encoded(COLORS)
    text = chunk(b"tEXt", b"Comment\0made by hand", checksum=1)
    assert png_fault(whole[:33] + text + whole[33:]) is None
    assert png_fault(whole[:33] + chunk(b"PLTE", b"\0\0\0", checksum=1) + whole[33:]) is not None


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\xff" * 20])
def test_what_has_no_whole_chunk_has_no_wrong_one(content):
    assert png_fault(content) is None and list(chunks_of(content)) == []
