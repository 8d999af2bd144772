"""Pictures beside each other, contact sheets and their files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import DataError
from vertebra.visualize import contact_sheet, save_png, side_by_side


def _plain(height, width, value=90):
    return np.full((height, width, 3), value, np.uint8)


def test_two_pictures_get_the_same_height():
    sheet = side_by_side(_plain(100, 200, 10), _plain(50, 100, 20))
    assert ((sheet == 10).all(axis=2).sum(), (sheet == 20).all(axis=2).sum()) == (100 * 200, 100 * 200)


def test_titles_need_room_above():
    without = side_by_side(_plain(100, 200), _plain(100, 200))
    titled = side_by_side(
        _plain(100, 200), _plain(100, 200), ("truth", "a title that is far too long for this picture")
    )
    assert titled.shape[0] > without.shape[0] and titled.shape[1] == without.shape[1]


def test_contact_sheet_shows_every_picture_whole():
    sheet = contact_sheet([_plain(30, 40, i + 1) for i in range(5)], columns=2)
    for i in range(5):
        assert (sheet == i + 1).all(axis=2).sum() == 30 * 40


def test_contact_sheet_fits_large_pictures_into_cells():
    sheet = contact_sheet([_plain(300, 1200)], cell_size=(400, 400))
    assert (sheet == 90).all(axis=2).sum() == 100 * 400


def test_contact_sheet_says_what_it_needs():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 titles for 2 images"):
        contact_sheet([_plain(9, 9)] * 2, titles=["one"])


def test_png_holds_the_pixels_and_nothing_else_is_left(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    path = save_png(picture, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_png_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the picture .*a\.png"):
        save_png(_plain(4, 4), tmp_path / "file" / "a.png")
