import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data import read_image, read_labels
from vertebra.data.images import oddities as image_oddities
from vertebra.data.images.oddities import OddImages, collected_oddities
from vertebra.data.images.read import image_size, image_suffixes
from vertebra.errors import DataError

REFUSED = {
    "animated.gif": "holds 3 frames or pages",
    "bad_crc.png": "header is damaged",
    "bomb_30000x30000_header_only.png": "too large",
    "bomb_30000x30000_real.png": "too large",
    "html_named.jpg": "HTML",
    "text_named.jpg": "not an image",
    "truncated.jpg": "damaged image .*truncated",
    "truncated.png": "damaged image .*truncated",
    "zero_byte.jpg": "the file is empty",
}
SAME_PICTURE = [
    "png_named.jpg",
    "cmyk.jpg",
    "exif_orientation_2.jpg",
    "exif_orientation_6.jpg",
    "exif_orientation_invalid.jpg",
    "name with spaces and ünïcode é.jpg",
]
GRAY = ["gray8.jpg", "gray_alpha.png", "bilevel.png", "gray16.png"]
OTHER = {
    "rgba.png": (120, 160),
    "one_by_one.jpg": (1, 1),
    "one_by_one.png": (1, 1),
    "mask_rgb.png": (120, 160),
    "mask_unknown_label.png": (120, 160),
    "mask_wrong_size.png": (100, 150),
}


def test_every_image_of_the_collection_is_in_one_of_the_tables(shared):
    names = {path.name for path in shared("data/bad/images").iterdir()}
    assert names == {"ok.jpg", *REFUSED, *SAME_PICTURE, *GRAY, *OTHER}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_image_is_an_error_with_its_path(shared, name):
    path = shared("data/bad/images") / name
    with pytest.raises(DataError, match=REFUSED[name]) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", SAME_PICTURE)
def test_other_encodings_show_the_same_picture(shared, name):
    folder = shared("data/bad/images")
    picture, other = read_image(folder / "ok.jpg").astype(float), read_image(folder / name).astype(float)
    assert (
        np.abs(picture - other).mean() < 6
    )  # gray values; each was compressed by itself, an inverted one is off by 100


@pytest.mark.parametrize("name", GRAY)
def test_gray_images_get_three_equal_channels(shared, name):
    image = read_image(shared("data/bad/images") / name)
    assert image.shape == (120, 160, 3) and image.dtype == np.uint8
    assert (image == image[:, :, :1]).all() and image.max() > image.min()


@pytest.mark.parametrize("name", OTHER)
def test_awkward_images_are_read(shared, name):
    assert read_image(shared("data/bad/images") / name).shape == (*OTHER[name], 3)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    stored = {  # how a camera stores an upright picture under each orientation
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(read_image(path), upright)
    assert image_size(path) == (2, 3)


def test_alpha_is_dropped_and_bgr_is_the_other_way_round(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3, 0]]], np.uint8), mode="RGBA").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").tolist() == [[[1, 2, 3]]]
    assert read_image(tmp_path / "x.png", order="bgr").tolist() == [[[3, 2, 1]]]


def test_float_pixels_and_folders_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match="float pixels"):
        read_image(tmp_path / "x.tiff")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="no such image file"):
        read_image(tmp_path / "y.png")


def test_labels_come_unchanged_and_colors_are_no_labels(tmp_path, shared):
    labels = np.array([[0, 1], [254, 255]], np.uint8)
    palette = Image.fromarray(labels, mode="P")
    palette.putpalette([255 - i for i in range(256) for _ in range(3)])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_labels(tmp_path / "p.png"), labels)
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "w.png")
    assert read_labels(tmp_path / "w.png").tolist() == [[0, 300]]
    with pytest.raises(DataError, match=r"mask_rgb\.png: labels need one channel"):
        read_labels(shared("data/bad/images/mask_rgb.png"))


def saved(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


COLORS = np.full((4, 5, 3), 200, np.uint8)
FRAMES = [Image.fromarray(COLORS), Image.fromarray(COLORS // 2)]


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.tiff", "x.png"])
def test_files_of_several_frames_are_refused_and_of_one_are_read(tmp_path, name):
    several = {"save_all": True, "append_images": FRAMES[1:]}
    saved(tmp_path / name, COLORS, **several)
    for read in (read_image, read_labels, image_size):
        with pytest.raises(DataError, match=rf"{name}: holds 2 frames or pages"):
            read(tmp_path / name)
    saved(tmp_path / name, COLORS)
    assert read_image(tmp_path / name).shape == (4, 5, 3)


def test_pages_that_are_smaller_copies_and_previews_do_not_count(tmp_path, caplog):
    """NewSubfileType 1 is "reduced resolution image" (TIFF 6.0, section 8); MPO is what phones write as .jpg."""
    from PIL import TiffImagePlugin

    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[254] = 1
    small = Image.fromarray(COLORS[:2, :2])
    small.encoderinfo = {"tiffinfo": info}
    FRAMES[0].save(tmp_path / "x.tiff", save_all=True, append_images=[small])
    FRAMES[0].save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[small])
    with collected_oddities() as found:
        assert read_image(tmp_path / "x.tiff").shape == read_image(tmp_path / "x.jpg").shape == (4, 5, 3)
    assert [kind for kind, _ in found] == ["previews", "previews"]


def test_masks_beside_a_tiff_do_not_count_and_a_reduced_first_page_is_refused(tmp_path):
    """Subfile types 4 (transparency mask, as GDAL writes them) and 1 (reduced resolution)."""
    from PIL import TiffImagePlugin

    def page(pixels, kind):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[254] = kind
        picture = Image.fromarray(pixels)
        picture.encoderinfo = {"tiffinfo": info}
        return picture, info

    mask, _ = page(np.zeros((4, 5), np.uint8), 4)
    FRAMES[0].save(tmp_path / "mask.tiff", save_all=True, append_images=[mask])
    assert read_image(tmp_path / "mask.tiff").shape == (4, 5, 3)
    small, info = page(COLORS[:2, :2], 1)
    small.save(tmp_path / "first.tiff", save_all=True, append_images=[page(COLORS, 0)[0]], tiffinfo=info)
    with pytest.raises(DataError, match=r"first.tiff: its first page is a reduced copy"):
        read_image(tmp_path / "first.tiff")


def test_files_that_state_their_range_are_not_taken_for_12_bits(tmp_path):
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 1023\n" + np.array([0, 50], ">u2").tobytes())
    assert read_image(tmp_path / "dark.pgm")[0, :, 0].tolist() == [0, 12]
    pixels = struct.pack("<2H", 0, 31 << 11)  # BMP of 16 bits a pixel: 5, 6 and 5 of them a color
    masks = struct.pack("<3L", 31 << 11, 63 << 5, 31)
    header = struct.pack("<LllHHLLllLL", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<LHHL", 70, 0, 0, 66) + header + masks + pixels)
    with collected_oddities() as found:
        assert read_image(tmp_path / "a.bmp").tolist() == [[[0, 0, 0], [255, 0, 0]]]
    assert found == []


def tiff_of(path, channels, extra=None):
    """An uncompressed 8-bit TIFF of 2 x 2 pixels with any number of channels, written by hand (TIFF 6.0, section 2)."""
    tags = {256: 2, 257: 2, 258: 8, 259: 1, 262: 2, 273: 0, 277: channels, 278: 2, 279: 4 * channels, 284: 1}
    if extra is not None:
        tags[338] = extra
    size = 2 + 12 * len(tags) + 4
    more = 8 + size
    entries = b""
    tail = b""
    for tag, value in sorted(tags.items()):
        many = channels if tag == 258 else channels - 3 if tag == 338 else 1
        if many > 2:  # shorts that do not fit into the entry lie behind the directory
            entries += struct.pack("<HHLL", tag, 3, many, more + len(tail))
            tail += struct.pack(f"<{many}H", *[value] * many)
        elif tag == 273:
            entries += b"strips here."
        else:
            entries += struct.pack("<HHLHH", tag, 3, many, value, value if many == 2 else 0)
    entries = entries.replace(b"strips here.", struct.pack("<HHLL", 273, 4, 1, more + len(tail)))
    head = b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<L", 0)
    path.write_bytes(head + tail + bytes(range(4 * channels)))
    return path


def test_channels_that_are_neither_colors_nor_alpha_are_refused(tmp_path):
    assert read_image(tiff_of(tmp_path / "rgb.tiff", 3)).tolist()[0] == [[0, 1, 2], [3, 4, 5]]
    with collected_oddities() as found:
        assert read_image(tiff_of(tmp_path / "rgba.tiff", 4, extra=2)).tolist()[0] == [[0, 1, 2], [4, 5, 6]]
    assert [kind for kind, _ in found] == ["alpha"]
    with pytest.raises(DataError, match=r"rgbx.tiff: has 4 channels, of which only 3 \(RGB\) are known"):
        read_image(tiff_of(tmp_path / "rgbx.tiff", 4, extra=0))
    with pytest.raises(DataError, match=r"five.tiff: has 5 channels"):
        read_image(tiff_of(tmp_path / "five.tiff", 5, extra=0))
    with pytest.raises(DataError, match=r"eight.tiff: a TIFF file of 8 channels of 8 bits"):
        read_image(tiff_of(tmp_path / "eight.tiff", 8, extra=0))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("highest", [399, 4095])
def test_twelve_bits_in_a_file_of_sixteen_are_refused(tmp_path, suffix, highest):
    path = saved(tmp_path / f"x.{suffix}", np.array([[0, highest]], np.uint16))
    with pytest.raises(DataError, match=r"(?s)no value reaches 4096 in a file of 16 bits.*Convert such"):
        read_image(path)
    assert read_labels(path).tolist() == [[0, highest]]
    with collected_oddities() as found:
        assert read_image(saved(path, np.array([[0, 4096]], np.uint16)))[0, :, 0].tolist() == [0, 16]
        assert not read_image(saved(path, np.zeros((2, 2), np.uint16))).any()
    assert [kind for kind, _ in found] == ["16 bits", "16 bits"]


@pytest.mark.parametrize(("highest", "passes"), [(200, False), (4095, False), (65535, True)])
def test_color_files_of_sixteen_bits_are_treated_alike(tmp_path, highest, passes):
    """A PNG of 16-bit RGB, written by hand: Pillow writes none."""
    path = tmp_path / "x.png"
    pixels = np.array([[[0, highest, 7]]], ">u2").tobytes()
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" + pixels))]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
            for name, body in [*chunks, (b"IEND", b"")]
        )
    )
    if passes:
        with collected_oddities() as found:
            assert read_image(path).tolist() == [[[0, 255, 0]]]
        assert found == [("16 bits", str(path))]
    else:
        with pytest.raises(DataError, match="no value reaches 4096"):
            read_image(path)


def test_transparency_is_said_where_there_is_any(tmp_path):
    half = np.dstack([COLORS, np.full((4, 5), 128, np.uint8)])
    palette = Image.fromarray(COLORS).convert("P")
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    with collected_oddities() as found:
        for name, pixels in (("half", half), ("full", np.dstack([COLORS, np.full((4, 5), 255, np.uint8)]))):
            read_image(saved(tmp_path / f"{name}.png", pixels))
        read_image(saved(tmp_path / "gray.png", half[..., 2:]))
        read_image(tmp_path / "palette.png")
    assert [Path(path).stem for kind, path in found if kind == "alpha"] == ["half", "gray", "palette"]


def test_what_is_unusual_is_logged_once_for_each_kind(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_oddities, "_told", set())
    half = np.dstack([COLORS, np.full((4, 5), 128, np.uint8)])
    for name in ("a.png", "b.png"):
        read_image(saved(tmp_path / name, half))
    assert len(caplog.messages) == 1 and "a.png has transparent pixels" in caplog.messages[0]
    odd = OddImages()
    odd.tell([("alpha", "c.png"), ("alpha", "d.png"), ("16 bits", "e.png")])
    assert [message.split()[0] for message in caplog.messages[1:]] == ["c.png", "e.png"]


def test_types_and_endings_are_those_that_pillow_reads():
    assert {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".mpo",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
        ".bmp",
        ".gif",
        ".jp2",
    } <= image_suffixes()
    assert not {".eps", ".ps", ".pdf", ".mpg", ".psd", ".wmf"} & image_suffixes()
