"""Inputs that are nearly right: the message names the cause, and not what follows from it."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.data.coco.instances import CocoFormat
from vertebra.data.images.read import read_labels
from vertebra.errors import DataError
from vertebra.evaluation import coco_evaluate
from vertebra.predictor.sources import list_places
from vertebra_eval.files.foreign_labels import foreign_labels

ONE_LIST = r"is a list of points; write each polygon as one list of numbers: \[\[x1, y1, x2, y2, \.\.\.\]\]"
POLYGON = [[1, 1, 10, 1, 10, 10]]
XML = "<annotation><object/></annotation>"


@pytest.fixture
def coco(tmp_path):
    """coco(**changes): a COCO file of one image and object, and the folder of its image."""
    Image.new("RGB", (60, 40)).save(tmp_path / "1.png")

    def write(image=1, of=1, category=1, kind=1, segmentation=POLYGON):
        box = {"bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0, "segmentation": segmentation}
        content = {
            "images": [{"id": image, "file_name": "1.png", "width": 60, "height": 40}],
            "categories": [{"id": category, "name": "a"}],
            "annotations": [{"id": 1, "image_id": of, "category_id": kind, **box}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(content))
        return tmp_path / "coco.json"

    return write


SHAPES = {
    "point pairs": ([[1, 1], [10, 1], [10, 10]], ONE_LIST),
    "polygons of points": ([[[1, 1], [10, 1], [10, 10]]], ONE_LIST),
    "polygons of four points": ([[[1, 1], [10, 1], [10, 10], [1, 10]]], ONE_LIST),
    "objects": ([{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 9, "y": 9}], ONE_LIST),
    "a flat list": ([1, 1, 10, 1, 10, 10], "is one flat list of numbers; a pair of brackets is missing"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_polygons_in_another_form(coco, name):
    segmentation, words = SHAPES[name]
    path = coco(segmentation=segmentation)
    with pytest.raises(DataError, match=words):
        CocoFormat(annotations=str(path), images=str(path.parent)).load(None)
    with pytest.raises(DataError, match=words):
        coco_evaluate(path, [], task="segm")
    result = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": segmentation}
    with pytest.raises(DataError, match=words):
        coco_evaluate(coco(), [result], task="segm")


IDS = {
    "a text for a number": ({"of": "1"}, "image_id '1' .*; the ids are numbers: write 1 without quotes"),
    "a number for a text": ({"image": "1"}, 'image_id 1 .*; the ids are texts: write "1"'),
    "a decimal point": ({"of": 1.0}, r"image_id is 1\.0, .*; ids are whole numbers: write 1 \(pandas writes 1\.0"),
    "a class as text": ({"kind": "1"}, "category_id '1' .*; the ids are numbers: write 1 without quotes"),
    "a class with a decimal point": ({"kind": 1.0}, r"category_id is 1\.0, .*; ids are whole numbers: write 1"),
    "an image with a decimal point": ({"image": 1.0}, r"images\[0\]: id is 1\.0, .*; ids are whole numbers: write 1"),
    "a negative text": ({"image": -1, "of": "-1"}, "image_id '-1' .*; the ids are numbers: write -1 without quotes"),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_another_type(coco, name):
    changes, words = IDS[name]
    path = coco(**changes)
    with pytest.raises(DataError, match=words) as caught:
        CocoFormat(annotations=str(path), images=str(path.parent)).load(None)
    assert "faults" not in str(caught.value)  # one cause, one line


@pytest.mark.parametrize("key", ["7", "x", "1" * 5000, "²", 7.5, float("nan"), float("inf"), True, None, [1], {}])
def test_any_other_id_gets_no_advice(coco, key):
    path = coco(of=key)
    with pytest.raises(DataError) as caught:
        CocoFormat(annotations=str(path), images=str(path.parent)).load(None)
    assert "write" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"of": "1"},
            "all 1 annotations .* image_id '1' is not among the images; the ids are numbers: write 1",
        ),
        (
            {"kind": "1"},
            "all 1 annotations .* category_id '1' is not among the categories; the ids are numbers: write 1",
        ),
    ],
)
def test_ground_truth_whose_objects_all_belong_nowhere_is_refused(coco, changes, words):
    with pytest.raises(DataError, match=words):
        coco_evaluate(coco(**changes), [])


def test_masks_in_colors_name_the_option(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1:3] = (128, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "colors.png")
    with pytest.raises(DataError, match=r"mode RGB; if its colors stand for classes, list them .* colors: \[\[0, 0"):
        read_labels(tmp_path / "colors.png")
    Image.fromarray(pixels[..., 1:2].repeat(3, -1)).save(tmp_path / "gray.png")
    with pytest.raises(DataError, match="mode RGB; its channels are equal: save one of them as an 8-bit gray PNG"):
        read_labels(tmp_path / "gray.png")


@pytest.mark.parametrize("name", ["mask.jpg", "mask.png"])
def test_masks_in_jpeg_are_refused_whatever_their_name(tmp_path, name):
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name, format="JPEG")
    with pytest.raises(DataError, match="labels cannot be read from a JPEG, whose compression changes numbers"):
        read_labels(tmp_path / name)


SOURCES = {
    "voc": "it holds XML labels in Annotations, such as those of Pascal VOC; convert them to a COCO JSON",
    "voc/Annotations": "it holds XML labels, such as",
    "voc/Annotations/1.xml": "these are XML labels",
    "yolo": "it holds labels of YOLO in labels, one text file per image; convert",
    "yolo/labels": "it holds labels of YOLO, one text file",
    "yolo/labels/1.txt": "these are labels of YOLO",
    "roboflow": r"name the JSON file itself: _annotations\.coco\.json",
    "pictures": "it holds images and no annotations",
    "pictures/1.png": "this is an image",
    "table.csv": "this is a table",
}


@pytest.fixture
def sources(tmp_path):
    for folder in ("voc/Annotations", "yolo/labels", "roboflow", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "voc/Annotations/1.xml").write_text(XML)
    (tmp_path / "yolo/labels/1.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.1 0.1 0.2 0.1 0.2 0.2\n")
    (tmp_path / "yolo/labels/classes.txt").write_text("a\nb\n")
    (tmp_path / "roboflow/_annotations.coco.json").write_text("{}")
    Image.new("RGB", (6, 4)).save(tmp_path / "pictures/1.png")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    return tmp_path


@pytest.mark.parametrize("source", SOURCES)
def test_labels_of_other_formats_are_called_by_their_name(sources, command_line, source):
    err = command_line("data", "info", source, cwd=sources, code=2).stderr
    assert f"vertebra: {source}: {SOURCES[source]}".replace("\\", "") in err
    with pytest.raises(DataError, match=SOURCES[source]):
        CocoFormat(annotations=str(sources / source), images=str(sources)).load(None)


@pytest.mark.parametrize("line", ["inf 0.5 0.5 0.1 0.1", "nan 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "0 0.5", ""])
def test_other_texts_are_not_called_labels_of_yolo(tmp_path, line):
    (tmp_path / "notes.txt").write_text(f"{line}\n")
    assert foreign_labels(tmp_path / "notes.txt") is None


@pytest.mark.parametrize("place", ["rtsp://camera/1", "http://host/a.jpg", "https://host/v.mp4", "udp://1.2.3.4:5000"])
def test_addresses_of_the_network_are_not_called_missing_files(place):
    with pytest.raises(DataError, match=f"{place}: images are read from files, and addresses of the network are not"):
        list_places([place])


def test_a_missing_file_is_named_with_the_one_that_may_be_meant(tmp_path):
    (tmp_path / "A.JPG").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.jpg: no such file; there is A\.JPG"):
        list_places([tmp_path / "a.jpg"])
