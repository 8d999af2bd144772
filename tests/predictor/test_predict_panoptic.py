"""Panoptic predictions as files and pictures: COCO's PNG and JSON, which an evaluation reads, and the right names."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import Metadata
from vertebra.data.panoptic_labels import panoptic_label_names, stuff_segment_names
from vertebra.errors import DataError
from vertebra.evaluation import panoptic_evaluate
from vertebra.predictor import Prediction, pictures
from vertebra.predictor.panoptic import PanopticWriter
from vertebra.predictor.sources import Frame

THINGS, STUFF = ["cat", "dog"], ["sky", "grass"]
IDS = np.array([[0, 1, 1, 300], [0, 70000, 70000, 300]])
SEGMENTS = [
    {"id": 1, "category_id": 1, "isthing": True, "score": 0.87654321},
    {"id": 300, "category_id": 1, "isthing": False, "area": 2},
    {"id": 70000, "category_id": 0, "isthing": True, "score": 0.5},
    {"id": 70001, "category_id": 0, "isthing": True, "score": 0.5},  # of no pixel
]


def metadata(mode="all"):
    return Metadata("by hand").set(thing_classes=THINGS, stuff_classes=panoptic_label_names(THINGS, STUFF, mode))


def prediction(name="x/pic.jpg", key="panoptic_seg", ids=IDS, segments=SEGMENTS):
    frame = Frame(np.zeros((*np.shape(ids), 3), dtype=np.uint8), name)
    return Prediction(frame, {key: (torch.as_tensor(ids, dtype=torch.int32), segments)})


def write(folder, *predictions, mode="all"):
    writer = PanopticWriter(folder, metadata(mode))
    for one in predictions:
        writer.add(one)
    writer.close()
    return writer.written


@pytest.mark.parametrize("mode", ["all", "stuff"])
def test_the_files_are_cocos(tmp_path, mode):
    files = write(tmp_path, prediction(), prediction("y/pic.jpg", ids=-(IDS == 0).astype(int), segments=[]), mode=mode)
    assert files == [tmp_path / "panoptic_predictions.json", tmp_path / "panoptic_predictions"]
    content = json.loads(files[0].read_text())
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [
        (0, "cat", 1),
        (1, "dog", 1),
        (2, "sky", 0),
        (3, "grass", 0),
    ]
    first, second = content["annotations"]
    assert (first["image_id"], first["file_name"], first["image_file_name"]) == (1, "pic.png", "x/pic.jpg")
    assert first["segments_info"] == [
        {"id": 1, "category_id": 1, "isthing": 1, "area": 2, "score": 0.87654},
        {"id": 300, "category_id": 3, "isthing": 0, "area": 2},
        {"id": 70000, "category_id": 0, "isthing": 1, "area": 2, "score": 0.5},
    ]
    assert (second["image_id"], second["file_name"], second["segments_info"]) == (2, "pic-2.png", [])
    for name, ids in (("pic.png", IDS), ("pic-2.png", 0 * IDS)):  # void, 0 or -1, is 0
        assert np.array_equal(np.asarray(Image.open(files[1] / name)).astype(int) @ (1, 256, 65536), ids)


def test_category_ids_are_the_datasets_own_where_each_has_one(tmp_path):
    known = {"thing_dataset_id_to_contiguous_id": {17: 0, 18: 1}, "stuff_dataset_id_to_contiguous_id": {187: 0, 193: 1}}
    for folder, facts, expected in (
        ("own", known, [17, 18, 187, 193]),
        ("half", {**known, "stuff_dataset_id_to_contiguous_id": {187: 0}}, [0, 1, 2, 3]),
        ("twice", {**known, "stuff_dataset_id_to_contiguous_id": {17: 0, 18: 1}}, [0, 1, 2, 3]),
    ):
        writer = PanopticWriter(tmp_path / folder, metadata().set(**facts))
        writer.add(prediction())
        writer.close()
        content = json.loads((tmp_path / folder / "panoptic_predictions.json").read_text())
        assert [category["id"] for category in content["categories"]] == expected
        found = [info["category_id"] for info in content["annotations"][0]["segments_info"]]
        assert found == [expected[1], expected[3], expected[0]]


def test_the_files_can_be_evaluated(tmp_path):
    """Against themselves, with the true areas: perfect."""
    (json_file, _) = write(tmp_path, prediction())
    quality = panoptic_evaluate(json_file, pred_json=json_file)
    assert quality.metrics["panoptic/PQ"] == 1.0 and quality.all.n == 3


def test_heads_do_not_mix_and_earlier_files_stay(tmp_path):
    files = write(tmp_path, prediction(key="one/panoptic_seg"), prediction(key="two/panoptic_seg"))
    assert [path.name for path in files[::2]] == ["panoptic_predictions-one.json", "panoptic_predictions-two.json"]
    assert [json.loads(path.read_text())["annotations"][0]["image_id"] for path in files[::2]] == [1, 2]
    write(tmp_path, prediction())
    with pytest.raises(DataError, match="already holds predictions"):
        PanopticWriter(tmp_path, metadata())


def test_nothing_predicted_writes_nothing(tmp_path):
    assert write(tmp_path) == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["all", "stuff"])
def test_pictures_name_stuff_by_its_own_names(mode, monkeypatch):
    """Semantic labels may be named by the same list, things first; segments of stuff count from 0 all the same."""
    named = {}
    monkeypatch.setattr(
        pictures, "draw_panoptic", lambda image, ids, segments, things, stuff, **_: named.update(t=things, s=stuff)
    )
    pictures.draw_prediction(prediction(), metadata(mode))
    assert named == {"t": THINGS, "s": STUFF}


def test_stuff_names_of_labels_without_things():
    assert stuff_segment_names(THINGS, STUFF) == STUFF
    assert stuff_segment_names(None, STUFF) == STUFF
    assert stuff_segment_names(THINGS, None) == []
