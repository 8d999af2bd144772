"""Runs straight from a PNG's filtered rows: the same as from its pixels, for every filter; and what it leaves alone."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

pytest.importorskip("numba", reason="the fast reader of panoptic PNG files needs numba")

from vertebra.errors import DataError
from vertebra.evaluation import panoptic_evaluate
from vertebra_eval.panoptic import png_runs, runs
from vertebra_eval.panoptic.runs import IdRuns, id_run_reader, read_id_runs


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


@pytest.mark.slow
@given(filtered_images(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_runs_are_those_of_the_pixels_whatever_the_filters(image, by_zlib):
    colors, filters = image
    expected = IdRuns.of(colors.astype(np.int64) @ (1, 256, 65536))
    encoded = _png(_filtered(colors, filters), *colors.shape[:2])
    with pytest.MonkeyPatch.context() as patch:
        if by_zlib:
            patch.setattr(png_runs, "deflate", None)
        size, starts, ids = png_runs.png_id_runs(encoded)
    assert size == expected.size
    assert starts.tolist() == expected.starts.tolist() and ids.tolist() == expected.ids.tolist()


def test_the_real_files_give_the_same_runs(shared):
    for path in sorted(shared("data/panoptic_sample").glob("**/*.png")):
        found = png_runs.png_id_runs(path.read_bytes())
        expected = read_id_runs(path)
        assert found is not None and found[0] == tuple(expected.size)
        assert np.array_equal(found[1], expected.starts) and np.array_equal(found[2], expected.ids)


SOUND = _png(bytes(2 * (1 + 3 * 3)), 2, 3)


@pytest.mark.parametrize("by_zlib", [False, True])
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
def test_other_and_damaged_files_are_left_to_the_careful_reader(monkeypatch, encoded, by_zlib):
    if by_zlib:
        monkeypatch.setattr(png_runs, "deflate", None)
    assert png_runs.png_id_runs(SOUND) is not None
    assert png_runs.png_id_runs(encoded) is None


@pytest.mark.slow
def test_many_files_are_read_fast_with_the_same_numbers_and_errors(shared, monkeypatch, tmp_path):
    sample = shared("data/panoptic_sample")
    files = sample / "panoptic_examples.json", None, sample / "predictions/noise.json"
    careful = panoptic_evaluate(*files).metrics
    assert id_run_reader(2) is read_id_runs
    monkeypatch.setattr(runs, "_MANY_FILES", 1)
    assert id_run_reader(2) is not read_id_runs
    assert panoptic_evaluate(*files).metrics == careful
    Image.new("L", (3, 2)).save(tmp_path / "gray.png")
    for name, message in (("gray.png", "has mode L"), ("none.png", "no such panoptic PNG")):
        with pytest.raises(DataError, match=message):
            id_run_reader(2)(tmp_path / name)
