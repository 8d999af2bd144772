import copy
import pickle

import pytest

from vertebra.data import DatasetCatalog, Metadata, MetadataCatalog, load_dataset
from vertebra.errors import DataError


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Registers datasets, with their (empty) files in the current directory, and forgets them after the test."""
    monkeypatch.chdir(tmp_path)
    names = []

    def register(name, dicts, **facts):
        for item in dicts:
            (tmp_path / item["file_name"]).touch()
        DatasetCatalog.register(name, lambda: dicts)
        MetadataCatalog.get(name).set(**facts)
        names.append(name)

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def entry(name: str, *categories: int) -> dict:
    boxes = [{"bbox": [0, 0, 2, 2], "bbox_mode": 0, "category_id": category} for category in categories]
    return {"file_name": name, "height": 4, "width": 6, "image_id": name, "annotations": boxes}


def test_metadata_is_set_once_and_the_same_value_again_is_no_error():
    metadata = Metadata("cells")
    metadata.thing_classes = ["a", "b"]
    assert metadata.set(thing_classes=["a", "b"]) is metadata
    with pytest.raises(DataError, match=r"cells.*thing_classes is already \['a', 'b'\]"):
        metadata.thing_classes = ["a"]


def test_a_missing_fact_names_the_nearest_one():
    metadata = Metadata("cells").set(thing_classes=["a"])
    with pytest.raises(AttributeError, match=r"cells.*'thing_clases'. Nearest: thing_classes"):
        _ = metadata.thing_clases
    assert metadata.get("stuff_classes", 3) == 3


def test_metadata_survives_pickle_and_copy():
    metadata = Metadata("cells").set(thing_classes=["a"])
    for other in (pickle.loads(pickle.dumps(metadata)), copy.deepcopy(metadata)):
        assert other.as_dict() == {"name": "cells", "thing_classes": ["a"]}


def test_metadata_catalog_gives_the_same_object_for_a_name():
    assert MetadataCatalog.get("test_same") is MetadataCatalog.get("test_same")
    MetadataCatalog.remove("test_same")


def test_a_name_is_registered_once_and_a_miss_suggests_names(registered):
    registered("test_cells_train", [entry("a.png", 0)])
    with pytest.raises(DataError, match=r"test_cells_train.*already"):
        DatasetCatalog.register("test_cells_train", list)
    with pytest.raises(DataError, match=r"'test_cell_train'. Nearest: test_cells_train"):
        DatasetCatalog.get("test_cell_train")


def test_a_registered_dataset_is_loaded_with_its_metadata(registered):
    registered("test_cells", [entry("a.png", 0), entry("b.png")], thing_classes=["x"])
    dataset = load_dataset("test_cells")
    assert [item["file_name"] for item in dataset] == ["a.png", "b.png"]
    assert dataset.metadata is MetadataCatalog.get("test_cells")


def test_a_registered_category_outside_the_classes_is_an_error_with_the_image(registered):
    registered("test_cells", [entry("a.png", 0), entry("b.png", 0, 1)], thing_classes=["x"])
    with pytest.raises(DataError, match=r"b\.png: annotation 1: category_id is 1, expected 0 to 0"):
        load_dataset("test_cells")


def test_joined_datasets_follow_each_other_and_must_agree_in_classes(registered):
    registered("test_one", [entry("a.png", 0)], thing_classes=["x", "y"], json_file="1.json")
    registered("test_two", [entry("b.png", 1)], thing_classes=["x", "y"], json_file="2.json")
    registered("test_three", [entry("c.png", 0)], thing_classes=["y", "x"])
    registered("test_four", [entry("d.png", 0)], thing_classes=["y", "z"])
    both = load_dataset(["test_one", "test_two"])
    assert [item["file_name"] for item in both] == ["a.png", "b.png"]
    assert both.metadata.as_dict() == {"name": "test_one+test_two", "thing_classes": ["x", "y"]}
    turned = load_dataset(["test_one", "test_three"])
    assert [item["annotations"][0]["category_id"] for item in turned] == [0, 1]
    with pytest.raises(DataError, match=r"test_one and test_four cannot be joined: thing_classes"):
        load_dataset(["test_one", "test_four"])
