import numpy as np
import pytest
from PIL import Image

from vertebra.data import read_image, read_labels
from vertebra.data.image import image_size
from vertebra.errors import DataError

REFUSED = {
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
    "animated.gif": (120, 160),
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
