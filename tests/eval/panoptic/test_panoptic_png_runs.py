"""Panoptic PNG files by kornia-rs: the runs that Pillow gives, for every filter, and its verdict on damaged files."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

pytest.importorskip("kornia_rs", reason="the fast reader of panoptic PNG files is kornia-rs")

from vertebra_eval.errors import DataError
from vertebra_eval.panoptic import runs
from vertebra_eval.panoptic.runs import IdRuns, read_id_runs


def outcome(path):
    """The runs, or the error's words."""
    try:
        found = read_id_runs(path)
    except DataError as err:
        return str(err)
    return tuple(found.size), found.starts.tolist(), found.ids.tolist()


def both(path):
    """What comes of a file with kornia-rs, and by Pillow alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_fast_decoder", lambda: None)
        careful = outcome(path)
    return outcome(path), careful


def _chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(rows, height, width, kind=(8, 2, 0, 0, 0)):
    """A PNG of filtered rows, its data in two chunks."""
    data = zlib.compress(rows)
    parts = [data[: len(data) // 2], data[len(data) // 2 :]]
    chunks = [(b"IHDR", struct.pack(">II", width, height) + bytes(kind)), (b"tEXt", b"a\0b")]
    chunks += [(b"IDAT", part) for part in parts] + [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _filtered(colors, filters):
    """(H, W, 3) uint8 with a filter for each row, one byte after another as the specification says it."""
    height, width, _ = colors.shape
    known = np.zeros((height + 1, width + 1, 3), int)
    known[1:, 1:] = colors
    out = bytearray()
    for y, kind in enumerate(filters, 1):
        out.append(kind)
        for x in range(1, width + 1):
            for value, a, b, c in zip(known[y, x], known[y, x - 1], known[y - 1, x], known[y - 1, x - 1], strict=True):
                nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
                out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(out)


@st.composite
def filtered_images(draw):
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    values = draw(st.sampled_from([[0, 1], [0, 255, 128, 127], list(range(0, 256, 5))]))
    colors = draw(arrays.arrays(np.uint8, (height, width, 3), elements=st.sampled_from(values)))
    if draw(st.booleans()):  # long runs
        colors = colors[:: max(height // 2, 1)].repeat(3, axis=0).repeat(4, axis=1)
    return colors, draw(st.lists(st.integers(0, 4), min_size=len(colors), max_size=len(colors)))


@given(filtered_images())
@settings(deadline=None, max_examples=100)
def test_runs_are_those_of_the_pixels_whatever_the_filters(tmp_path_factory, image):
    colors, filters = image
    expected = IdRuns.of(colors.astype(np.int64) @ (1, 256, 65536))
    path = tmp_path_factory.getbasetemp() / "filtered.png"
    path.write_bytes(_png(_filtered(colors, filters), *colors.shape[:2]))
    assert runs._fast_pixels(path.read_bytes()).tolist() == colors.tolist()
    fast, careful = both(path)
    assert fast == careful == (expected.size, expected.starts.tolist(), expected.ids.tolist())


def test_the_real_files_give_the_same_runs(shared):
    files = sorted(shared("data/panoptic_sample").glob("**/*.png"))
    assert files
    for path in files:
        assert runs._fast_pixels(path.read_bytes()) is not None
        fast, careful = both(path)
        assert fast == careful


SOUND = _png(bytes(2 * (1 + 3 * 3)), 2, 3)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        SOUND[:20],
        SOUND[:-20],
        SOUND[:60] + bytes([SOUND[60] ^ 1]) + SOUND[61:],
        _png(bytes(19), 2, 3),
        _png(bytes(21), 2, 3),
        _png(b"\5" + bytes(19), 2, 3),
        _png(bytes(20), 2, 3, (8, 2, 0, 0, 1)),
        _png(bytes(8), 2, 3, (8, 0, 0, 0, 0)),
        _png(b"", 0, 3),
        _png(b"", 2**31 - 1, 2**31 - 1),
    ],
    ids=["empty", "header", "cut", "changed", "short", "long", "filter", "interlaced", "gray", "nothing", "huge"],
)
def test_other_and_damaged_files_have_the_verdict_of_the_careful_reader(tmp_path, encoded):
    path = tmp_path / "a.png"
    path.write_bytes(encoded)
    fast, careful = both(path)
    assert fast == careful


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_every_mode_has_the_verdict_of_the_careful_reader(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    fast, careful = both(tmp_path / "a.png")
    assert fast == careful and ("has mode" in careful) == (not mode.startswith("RGB"))
    assert "no such panoptic PNG" in outcome(tmp_path / "none.png")
