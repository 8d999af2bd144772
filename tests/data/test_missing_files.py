"""A file that is not there is named with the one that may be meant: other letters, accents, slashes, folders."""

import unicodedata
from pathlib import Path

import pytest

from vertebra.data import CocoFormat
from vertebra.errors import DataError
from vertebra_eval.files import read_json
from vertebra_eval.files.file_names import Folders, near_file

ACCENTED = "h\u00e4user.jpg"


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("images/a.jpg", "images/a.JPG"),
        ("images/A.JPG", "images/a.jpg"),
        ("Images/a.jpg", "images/a.JPG"),
        (f"images/{unicodedata.normalize('NFD', ACCENTED)}", f"images/{ACCENTED}"),
        (f"images/{ACCENTED}", f"images/{unicodedata.normalize('NFD', ACCENTED)}"),
        ("images\\a.jpg", "images/a.jpg"),
        ("images/sub\\a.jpg", "images/sub/A.jpg"),
        ("images/a%20b.jpg", "images/a b.jpg"),
        ("images/a b.jpg", "images/a%20b.jpg"),
        ("images/images/a.jpg", "images/a.jpg"),
        ("images/train/a.jpg", "images/a.jpg"),
    ],
)
def test_the_file_that_is_meant_is_found(tmp_path, named, there):
    path = tmp_path / there
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "other.png").touch()
    assert Folders().near(f"{tmp_path}/{named}") == str(path)


def test_where_none_is_meant_nothing_is_said(tmp_path):
    (tmp_path / "b.jpg").touch()
    (tmp_path / "a.jpg").mkdir()
    assert near_file(tmp_path / "c.jpg") == near_file(tmp_path / "A.jpg") == near_file("/nowhere/at/all.jpg") == ""
    assert near_file(tmp_path / "B.JPG") == "; there is b.jpg"


def test_datasets_and_annotation_files_say_it(coco_folder, tmp_path):
    annotations, images = coco_folder({"a.jpg": (4, 4), "b.jpg": (4, 4)}, [])
    Path(images, "a.jpg").rename(Path(images, "a.JPG"))
    Path(images, "b.jpg").unlink()
    with pytest.raises(DataError) as caught:
        CocoFormat(annotations, images).load()
    lines = str(caught.value).splitlines()
    assert lines[1].endswith("a.jpg: a record names it (file_name), but there is no such file; there is a.JPG")
    assert lines[2].endswith("b.jpg: a record names it (file_name), but there is no such file")
    with pytest.raises(DataError, match=r"DATA.json: no such annotation file; there is data.json. A relative path"):
        CocoFormat("DATA.json", ".").load(str(tmp_path))
    with pytest.raises(DataError, match=r"DATA.json: no such annotation file; there is data.json$"):
        read_json(tmp_path / "DATA.json")


def test_a_relative_path_counts_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a.JPG").touch()
    monkeypatch.chdir(tmp_path)
    assert near_file("a.jpg") == "; there is a.JPG"
