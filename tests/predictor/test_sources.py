"""Places that hold images, and what each of them stands for."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import DataError, SetupError
from vertebra.predictor.sources import Camera, list_places, open_source


def names(places, **arguments):
    return [getattr(place, "name", str(place)) for place in list_places(places, **arguments)]


def test_files_folders_and_patterns_in_the_order_they_are_named(folder, monkeypatch):
    assert names([folder]) == ["a.png", "b.jpg"]
    assert names([folder / "b.jpg", folder / "a.png", folder / "b.jpg"]) == ["b.jpg", "a.png", "b.jpg"]
    assert names([f"{folder}/*.png"]) == ["a.png"]
    assert names([f"{folder.parent}/**/*.jpg"]) == ["b.jpg"]
    monkeypatch.chdir(folder)
    assert names(["[ab].*"]) == ["a.png", "b.jpg"]


def test_folders_take_what_single_files_may_be_and_say_what_they_leave_out(folder, pixels, caplog):
    others = ("c.jfif", "d.PPM", "e.jp2", "f.mp4", "notes.txt", ".hidden.png", "h")
    for name in others:
        (folder / name).write_bytes(b"")
    Image.fromarray(pixels(5, 6)).save(folder / "c.jfif", format="JPEG")
    (folder / "inner").mkdir()
    assert names([folder]) == ["a.png", "b.jpg", "c.jfif", "d.PPM", "e.jp2", "f.mp4"]
    assert f"{folder}: 2 files are neither images nor videos: h, notes.txt" in caplog.messages
    assert f"{folder}: 1 folders in it are not looked into; {folder}/**/* would" in caplog.messages
    assert next(open_source(folder / "c.jfif")).image.shape == (5, 6, 3)


def test_what_is_unusual_about_images_is_said(folder, pixels, caplog):
    Image.fromarray(np.dstack([pixels(5, 6), np.zeros((5, 6), np.uint8)])).save(folder / "clear.png")
    list(open_source([folder / "clear.png"] * 2))
    assert [message for message in caplog.messages if "clear.png has transparent pixels" in message] == caplog.messages


def test_a_file_whose_name_looks_like_a_pattern_or_a_camera_is_a_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "a[1].png").write_bytes((folder / "a.png").read_bytes())
    (folder / "0").write_bytes((folder / "a.png").read_bytes())
    assert names(["a[1].png", "0"]) == ["a[1].png", "0"]
    assert list_places(["1", 2]) == [Camera(1), Camera(2)]


def test_names_on_standard_input(folder):
    lines = io.StringIO(f"{folder}/b.jpg\n\n  {folder}/a.png  \n")
    assert names(["-"], stdin=lines) == ["b.jpg", "a.png"]
    with pytest.raises(DataError, match="standard input holds no names"):
        list_places(["-"], stdin=io.StringIO("\n"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nothing.jpg", r"no such file \(expected an image, a video or a folder\)"),
        ("*.jpg", r"\*\.jpg: this pattern fits no file"),
        ("*.txt", "fits 1 files, none of them an image or a video"),
        ("empty", "this folder holds no image"),
    ],
)
def test_a_place_that_is_not_there_is_told_before_anything_is_read(folder, monkeypatch, place, words):
    (folder.parent / "empty").mkdir()
    (folder.parent / "notes.txt").write_text("")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match=words):
        open_source([folder / "a.png", place])


def test_pixels_are_a_place_too(pixels):
    array = pixels(10, 12)
    [frame] = open_source(array)
    assert frame.name == "array 0" and frame.number is None
    assert np.array_equal(frame.image, array)
    with pytest.raises(DataError, match="the image is float64"):
        list(open_source(array / 255))


def test_frames_of_a_video_come_one_by_one_with_their_times(video):
    frames = list(open_source(video))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {(frame.name, frame.rate, frame.image.shape) for frame in frames} == {(str(video), 10.0, (64, 96, 3))}
    assert frames[3].stem == "clip_000003"


def test_colors_of_a_video_are_rgb(video, pixels):
    frame = next(iter(open_source(video)))
    original = pixels(64, 96, 0).astype(float)
    apart = np.abs(frame.image - original).mean()
    turned = np.abs(frame.image[:, :, ::-1] - original).mean()
    assert apart < turned / 2


def test_damaged_ones_are_gathered_or_raised(folder, tmp_path):
    (folder / "c.png").write_text("damaged")
    (tmp_path / "d.mp4").write_text("damaged")
    unreadable = []
    read = [frame.name for frame in open_source([folder, tmp_path / "d.mp4", folder / "a.png"], unreadable)]
    assert [name.rpartition("/")[2] for name in read] == ["a.png", "b.jpg", "a.png"]
    assert len(unreadable) == 2 and "c.png" in unreadable[0] and "not a video that FFmpeg can read" in unreadable[1]
    with pytest.raises(DataError, match=r"c\.png"):
        list(open_source(folder))


@pytest.mark.parametrize(("package", "place"), [("av", "a.mp4"), ("cv2", 0)])
def test_without_its_package_a_video_says_what_to_install(tmp_path, monkeypatch, package, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_text("")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=r"pip install 'vertebra\[video\]'"):
        list(open_source(place, []))
