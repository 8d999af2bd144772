"""What COCO files say that means "none", and what is legal but rarely meant: noted with count and record."""

import json
from pathlib import Path

import numpy as np
import pytest

from vertebra.data import CocoFormat
from vertebra.data.facts import describe_dataset
from vertebra.errors import DataError
from vertebra.evaluation import coco_evaluate
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco.annotations import mask_of
from vertebra_eval.coco.objects import object_notes

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
BOX = [1, 1, 4, 4]
PERSON = {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}


def record(image=1, **more):
    return {"image_id": image, "category_id": 1, "bbox": BOX, **more}


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        *((none, None) for none in (None, {}, [], [[]], [[], []])),
        ([[], SQUARE], [SQUARE]),
        ([(), SQUARE], [SQUARE]),
        ([SQUARE], [SQUARE]),
        ({"size": [4, 4], "counts": [16]}, {"size": [4, 4], "counts": [16]}),
        ("x", "x"),
    ],
)
def test_masks_that_stand_for_none(given, mask):
    assert mask_of(given) == mask


@pytest.fixture
def odd_nones(coco_folder):
    """Three objects without mask and keypoints, said in three ways, and one with both."""
    return coco_folder(
        {"a.png": (20, 20)},
        [
            record(segmentation=[[]], keypoints=[], iscrowd=None),
            record(segmentation={}, keypoints=None),
            record(segmentation=[], iscrowd=0),
            record(segmentation=[[], SQUARE], keypoints=[2, 2, 2, 3, 3, 1]),
        ],
        categories=[{"id": 1, "name": "cat", **PERSON}],
    )


def test_nones_are_read_as_none_in_training_and_evaluation(odd_nones, caplog):
    dataset = CocoFormat(*odd_nones).load()
    assert [item.get("segmentation") for item in dataset[0]["annotations"]] == [None, None, None, [SQUARE]]
    assert [bool(item.get("keypoints")) for item in dataset[0]["annotations"]] == [False, False, False, True]
    assert [item["iscrowd"] for item in dataset[0]["annotations"]] == [0] * 4
    assert not caplog.records
    results = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}]
    assert coco_evaluate(odd_nones[0], results, "bbox")["bbox/AR1"] == pytest.approx(0.25)
    masks = [{**results[0], "segmentation": [SQUARE]}]
    assert coco_evaluate(odd_nones[0], masks, "segm")["segm/AP"] == pytest.approx(1.0)
    points = [{**results[0], "keypoints": [2, 2, 2, 3, 3, 1]}]
    assert coco_evaluate(odd_nones[0], points, "keypoints")["keypoints/AP"] == pytest.approx(1.0)
    truth = GroundTruth.of_dataset(dataset)
    assert [bool(one.get("segmentation")) for one in truth.records()] == [False, False, False, True]


def test_what_is_neither_a_mask_nor_none_is_refused(coco_folder):
    for wrong in ("", 0, False, [[1, 2]], {"size": [4, 4]}):
        with pytest.raises(DataError, match=r"annotations\[0\]"):
            CocoFormat(*coco_folder({"a.png": (20, 20)}, [record(segmentation=wrong)])).load()
    with pytest.raises(DataError, match=r"one flat list of numbers; a pair of brackets is missing: \[\[x1"):
        CocoFormat(*coco_folder({"a.png": (20, 20)}, [record(segmentation=SQUARE)])).load()


@pytest.mark.parametrize(
    ("records", "note"),
    [
        (
            [record(), record(area=0)],
            r"1 of 2 objects have area 0, which OKS divides by \(first: annotations\[1\]",
        ),
        ([record(area=1), record(area=16)], r"1 of 2 objects have area 1, though their boxes are larger \(first: ann"),
        ([record(area=-3)], r"1 of 1 objects have a negative area \(first: annotations\[0\] \(id 1\)\)"),
        ([record(), record(iscrowd=1)], r"1 of 2 objects are crowd regions \(iscrowd 1; first: annotations\[1\]"),
        (
            [record(keypoints=[1, 1, 2])],
            r"keypoints that no category names in a list `keypoints`, not read: 1 \(",
        ),
        ([record()] * 101, r"1 images have more than 100 objects of one class \(up to 101; first: annotations\[0\]"),
    ],
)
def test_what_is_rarely_meant_is_noted_with_count_and_record(coco_folder, caplog, records, note):
    files = coco_folder({"a.png": (20, 20)}, records)
    dataset = CocoFormat(*files).load()
    [message] = caplog.messages
    with pytest.raises(DataError, match=note):
        raise DataError(message)
    assert message.startswith(f"{files[0]}: ")
    assert [*dataset.metadata.get("notes", ()), *dataset.metadata.get("object_notes", ())] == [message]
    assert "opened     1 of 1 images" in describe_dataset(dataset)


def test_numbers_beyond_any_float_are_read(coco_folder, caplog):
    CocoFormat(*coco_folder({"a.png": (20, 20)}, [record(area=10**400, bbox=[0, 0, 10**200, 10**200])])).load()
    assert "cut: 1" in caplog.text


def test_what_is_usual_is_not_noted(coco_folder, caplog):
    usual = [record(area=16, segmentation=[SQUARE])] * 100 + [record(iscrowd=1)] * 3
    usual += [record(area=1, bbox=[1, 1, 1, 1]), record(keypoints=[0, 0, 0])]
    CocoFormat(*coco_folder({"a.png": (20, 20), "b.png": (20, 20)}, [*usual[:50], *usual[50:]])).load()
    assert not [message for message in caplog.messages if "crowd" in message or "area" in message]


def test_evaluation_notes_the_same(coco_folder):
    truth, _ = coco_folder({"a.png": (20, 20)}, [record(area=0)] * 101 + [record(area=0, iscrowd=1)] * 40)
    numbers = coco_evaluate(truth, [], "bbox")
    text = "\n".join(numbers.notes)
    assert "141 of 141 objects have area 0, which OKS divides by (first: annotation 1)" in text
    assert "40 of 141 objects are crowd regions (iscrowd 1; first: annotation 102)" in text
    assert "1 images have more than 100 objects of one class (up to 101; first: annotation 1)" in text
    assert "more than" not in "\n".join(coco_evaluate(truth, [], "bbox", max_dets=(1, 10, 200)).notes)


def test_persons_without_labeled_keypoints_do_not_count_against_the_limit(coco_folder):
    people = [record(keypoints=[2, 2, 2, 3, 3, 1], area=16)] * 20 + [record(area=16)] * 5
    truth, _ = coco_folder({"a.png": (20, 20)}, people, categories=[{"id": 1, "name": "cat", **PERSON}])
    assert not [note for note in coco_evaluate(truth, [], "keypoints").notes if "more than" in note]


def test_the_notes_are_worked_by_hand():
    image, category = np.array([5, 5, 5, 6]), np.array([0, 0, 1, 0])
    areas, boxes = np.array([np.nan, 4.0, 1.0, 1.0]), np.array([9.0, 9.0, 9.0, 1.0])
    crowd = np.zeros(4, bool)
    found = object_notes(image, category, areas, crowd, boxes, "number {}".format, max_dets=1)
    assert [note.split(" (")[0] for note in found] == [
        "1 of 4 objects have area 1, though their boxes are larger",
        "1 images have more than 1 objects of one class",
    ]
    assert "first: number 2" in found[0] and "up to 2; first: number 0" in found[1]
    assert object_notes(*(np.zeros(0, kind) for kind in (int, int, float, bool, float)), str) == []


def categories_of(coco_folder, *categories, **changes):
    file, folder = coco_folder({"a.png": (20, 20)}, [record(category_id=1), record(category_id=2)])
    content = json.loads(Path(file).read_text())
    content["categories"] = list(categories)
    Path(file).write_text(json.dumps(content))
    return CocoFormat(file, folder, **changes).load()


CELLS = [{"id": 1, "name": "cell", "supercategory": "cell"}, {"id": 2, "name": "dust", "supercategory": "cell"}]


def test_roboflows_parent_with_the_name_of_a_class_is_dropped(coco_folder, caplog):
    dataset = categories_of(coco_folder, {"id": 0, "name": "cell", "supercategory": "none"}, *CELLS)
    assert dataset.metadata.thing_classes == ["cell", "dust"]
    assert "categories[0] (id 0) has the name 'cell' of another and no annotations (the parent" in caplog.text
    assert dataset.metadata.notes == caplog.messages


def test_roboflows_parent_with_a_name_of_its_own_is_named_with_the_remedy(coco_folder, caplog):
    children = [{**one, "supercategory": "things"} for one in CELLS]
    parent = {"id": 0, "name": "things", "supercategory": "none"}
    assert categories_of(coco_folder, parent, *children).metadata.thing_classes == ["things", "cell", "dust"]
    assert "category 0 (things) has no annotations and is the supercategory of all others" in caplog.text
    assert "`classes: [cell, dust]` would drop it" in caplog.text
    caplog.clear()
    categories_of(coco_folder, parent, *children, classes=["cell", "dust"])
    assert not caplog.messages


def test_a_name_that_is_taken_otherwise_is_refused(coco_folder):
    with pytest.raises(DataError, match=r"categories\[2\] \(id 3\): the name 'cell' is taken by id 1 already"):
        categories_of(coco_folder, *CELLS[:1], {"id": 2, "name": "dust"}, {"id": 3, "name": "cell"})


@pytest.mark.parametrize("skeleton", [[1, 2], [[1, 2, 3]], [[1, 5]], "x", [["1", "2"]]])
def test_a_skeleton_that_is_not_pairs_is_noted(coco_folder, caplog, skeleton):
    person = {"id": 1, "name": "cell", "keypoints": ["nose", "tail"], "skeleton": skeleton}
    dataset = categories_of(coco_folder, person, {"id": 2, "name": "dust"})
    assert "category 'cell': its skeleton is not all pairs of numbers from 1 to 2; 0 such pairs are used" in caplog.text
    assert dataset.metadata.keypoint_connection_rules == []


def test_an_array_in_the_place_of_a_mask_says_what_is_expected(coco_folder):
    truth, _ = coco_folder({"a.png": (20, 20)}, [record(segmentation=[SQUARE])])
    results = [{"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": np.zeros((20, 20), np.uint8)}]
    with pytest.raises(DataError, match=r"record 0 \(image 1\): has a ndarray as segmentation; expected run lengths"):
        coco_evaluate(truth, results, "segm")
