"""Panoptic JSON and PNG files: every segment is checked when its file is read, in training and in evaluation."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from vertebra.data import Mapper
from vertebra.data.coco.panoptic_format import CocoPanopticFormat
from vertebra.data.panoptic_labels import with_panoptic_masks
from vertebra.errors import DataError
from vertebra.evaluation import panoptic_evaluate

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 9, "name": "sky", "isthing": 0},
]
SEGMENTS = [
    {"id": 300, "category_id": 7, "iscrowd": 0, "bbox": [0, 0, 4, 2], "area": 8},
    {"id": 70000, "category_id": 9, "iscrowd": 0, "bbox": [0, 2, 4, 2], "area": 8},
]
IDS = np.repeat([300, 300, 70000, 70000], 4).reshape(4, 4)


@pytest.fixture
def files(tmp_path):
    """files(change) writes the dataset, after `change(content)` of its JSON, and gives the format and the JSON."""

    def make(change=lambda content: None, ids=IDS):
        for folder in ("images", "pan"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(tmp_path / "images" / "a.png")
        colors = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        Image.fromarray(colors).save(tmp_path / "pan" / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
            "categories": copy.deepcopy(CATEGORIES),
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": copy.deepcopy(SEGMENTS)}],
        }
        change(content)
        (tmp_path / "pan.json").write_text(json.dumps(content))
        return CocoPanopticFormat(str(tmp_path / "pan.json"), str(tmp_path / "images")), tmp_path / "pan.json"

    return make


def segment(number, **changes):
    def change(content):
        content["annotations"][0]["segments_info"][number].update(changes)

    return change


def without(number, key):
    return lambda content: content["annotations"][0]["segments_info"][number].pop(key)


def category(number, **changes):
    return lambda content: content["categories"][number].update(changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (segment(0, id="300"), r"annotations\[0\] \(image 1\), segment 0: id is '300', expected a whole number from 1"),
        (segment(0, id=300.0), "segment 0: id is 300.0, expected a whole number"),
        (segment(0, id=0), "segment 0: id is 0, expected"),
        (segment(0, id=True), "segment 0: id is True, expected"),
        (segment(1, id=2**24), "segment 1: id is 16777216, expected"),
        (without(1, "id"), "segment 1: id is missing, expected"),
        (segment(1, id=300), "segment 300: another segment of the image has this id"),
        (segment(0, iscrowd="0"), "segment 300: iscrowd is '0', expected 0 or 1"),
        (segment(0, category_id="7"), "segment 300: category_id '7' is not among the categories"),
        (segment(0, category_id=[7]), r"segment 300: category_id \[7\] is not among"),
        (without(0, "category_id"), "segment 300: category_id None is not among"),
        (lambda content: content["annotations"][0]["segments_info"].insert(0, "x"), "segment 0: is 'x', expected an"),
        (category(1, isthing="0"), r"categories\[1\] \(id 9\): isthing is '0', expected true, false, 0 or 1"),
        (category(1, isthing=None), "isthing is missing, expected"),
        (lambda content: content["categories"][0].pop("isthing"), r"categories\[0\] \(id 7\): isthing is missing"),
        (
            lambda c: c["annotations"].append(c["annotations"][0]),
            r"annotations\[1\] \(image 1\): image_id 1 stands",
        ),
        (lambda c: c["annotations"][0].update(image_id=[1]), r"annotations\[0\]: image_id is \[1\], expected a number"),
        (category(1, id=7), r"categories\[1\]: id 7 occurs more than once"),
        (category(1, id="9"), r"categories\[1\]: must be an object with a whole number id"),
    ],
)
def test_a_faulty_segment_or_category_is_refused_with_the_file(files, change, says):
    dataset_format, path = files(change)
    with pytest.raises(DataError, match=rf"(?s){path}.*{says}"):
        dataset_format.load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (segment(0, id="300"), r"annotations\[0\] \(image 1\), segment 0: id is '300', expected a whole number from 1"),
        (without(1, "id"), "segment 1: id is missing, expected"),
        (segment(1, id=300), "segment 300: another segment of the image has this id"),
        (segment(0, iscrowd="0"), "segment 300: iscrowd is '0', expected 0 or 1"),
        (segment(0, area=-1), "segment 300: area is -1, expected a whole number of pixels"),
        (category(1, isthing="0"), r"categories\[1\] \(id 9\): isthing is '0'"),
        (lambda content: content["categories"][0].pop("isthing"), r"categories\[0\] \(id 7\): isthing is missing"),
        (lambda content: content["annotations"][0]["segments_info"].append({"id": 5, "category_id": 9}), "have no pix"),
    ],
)
def test_evaluation_refuses_the_same(files, tmp_path, change, says):
    _, good = files()
    (tmp_path / "good.json").write_text(good.read_text())
    _, path = files(change)
    with pytest.raises(DataError, match=says):
        panoptic_evaluate(path, tmp_path / "pan", tmp_path / "good.json", tmp_path / "pan")


@pytest.mark.parametrize("labels", ["all", "stuff"])
def test_a_segment_without_pixels_is_refused_when_its_png_is_read(files, labels):
    dataset_format, _ = files(ids=np.full((4, 4), 300))
    dataset_format.labels = labels
    dataset = dataset_format.load()
    mapper = Mapper([], training=True, metadata=dataset.metadata, mask_format="bitmask")
    with pytest.raises(DataError, match=r"pan/a.png: segments 70000 of the image's segments_info have no pixel in it"):
        mapper(dataset[0])
    record = files(ids=np.full((4, 4), 70000))[0].load()[0]
    with pytest.raises(DataError, match=r"pan/a.png: segments 300 of the image's segments_info have no pixel in it"):
        with_panoptic_masks(record["annotations"], record["pan_seg_file_name"])


def test_what_is_right_is_read(files):
    dataset = files(category(0, isthing=True))[0].load()
    sample = Mapper([], training=True, metadata=dataset.metadata, mask_format="bitmask", fields=["segmentation"])(
        dataset[0]
    )
    assert sample["sem_seg"].tolist() == [[0] * 4] * 2 + [[1] * 4] * 2
    assert sample["instances"].gt_masks.tensor.sum() == 8


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_panoptic_file_without_a_name_is_one_message(name):
    with pytest.raises(DataError, match=r"is a folder, not a file|name the JSON file itself"):
        CocoPanopticFormat(name, "images").load()
