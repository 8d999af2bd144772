"""Classes of datasets are matched with those of the model by their names."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.data import CocoFormat, Dataset, LabelReader, Metadata, SemanticFolderFormat, load_dataset
from vertebra.data.match_classes import match_classes
from vertebra.errors import DataError
from vertebra.structures import BoxMode

KNOWN = Metadata("train").set(thing_classes=["cat", "dog", "bird"])


def objects(names, numbers, **facts):
    """A dataset of one image, with an object of each class number."""
    boxes = [
        {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": number, "place": i}
        for i, number in enumerate(numbers)
    ]
    record = {"file_name": "a.png", "height": 20, "width": 20, "image_id": 1, "annotations": boxes}
    ids = {100 + number: number for number in range(len(names))}
    metadata = Metadata("val").set(thing_classes=names, thing_dataset_id_to_contiguous_id=ids, **facts)
    return Dataset([record], metadata)


def numbers_of(dataset):
    return [one["category_id"] for one in dataset[0]["annotations"]]


def test_a_dataset_with_the_same_list_stays_as_it_is():
    dataset = objects(["cat", "dog", "bird"], [2, 0])
    assert match_classes(dataset, KNOWN) is dataset
    assert match_classes(dataset, None) is dataset


def test_another_order_is_renumbered():
    dataset = match_classes(objects(["bird", "cat", "dog"], [0, 1, 2, 0]), KNOWN)
    assert numbers_of(dataset) == [2, 0, 1, 2]
    assert dataset.metadata.thing_classes == ["cat", "dog", "bird"]
    assert dataset.metadata.thing_dataset_id_to_contiguous_id == {100: 2, 101: 0, 102: 1}
    assert dataset.metadata.thing_contiguous_id_to_dataset_id == {2: 100, 0: 101, 1: 102}
    assert not dataset.metadata.absent_things


def test_a_subset_has_the_models_numbers_and_names_what_it_does_not_have():
    dataset = match_classes(objects(["bird", "cat"], [0, 1]), KNOWN)
    assert numbers_of(dataset) == [2, 0]
    assert dataset.metadata.absent_things == [1]


def test_a_class_that_nobody_knows_stops_and_shows_both_lists():
    with pytest.raises(DataError) as caught:
        match_classes(objects(["Cat", "dog"], [0, 1]), KNOWN, "the training set train")
    message = str(caught.value)
    assert "the classes of dataset val do not match those of the training set train: Cat" in message
    assert "train: cat, dog, bird" in message and "val: Cat, dog" in message
    assert "Nearest: Cat -> cat" in message and "`classes: [...]`" in message


def test_a_class_without_objects_that_nobody_knows_is_dropped_and_named(caplog):
    dataset = match_classes(objects(["background", "dog", "cat"], [1, 2]), KNOWN)
    assert numbers_of(dataset) == [1, 0]
    assert "dataset val: background has no objects, and the model does not know it: dropped" in caplog.text


def test_classes_that_the_training_set_dropped_by_choice_are_dropped_everywhere(caplog):
    known = Metadata("train").set(thing_classes=["cat", "dog"], dropped_classes=["bird"])
    dataset = match_classes(objects(["bird", "cat", "dog"], [0, 1, 2]), known)
    assert [one["place"] for one in dataset[0]["annotations"]] == [1, 2] and numbers_of(dataset) == [0, 1]
    assert "`classes` of the training set drops bird" in caplog.text


def test_objects_without_class_names_stop():
    with pytest.raises(DataError, match=r"(?s)val does not name the classes.*cat, dog, bird.*thing_classes=\["):
        match_classes(objects([], [0]), KNOWN)


@pytest.mark.parametrize("names", [["cat", "cat", "dog"], ["bird", "dog", "dog"]])
def test_names_that_repeat_cannot_be_matched(names):
    with pytest.raises(DataError, match="the names differ or repeat"):
        match_classes(objects(names, [0]), KNOWN)


def test_keypoints_of_another_order_stop():
    known = Metadata("train").set(thing_classes=["cat"], keypoint_names=["nose", "tail"])
    with pytest.raises(DataError, match=r"(?s)keypoints of dataset val.*nose, tail.*tail, nose"):
        match_classes(objects(["cat"], [0], keypoint_names=["tail", "nose"]), known)


def coco(folder, name, categories, annotations):
    images = [{"id": 1, "file_name": "a.png", "height": 20, "width": 20}]
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "a.png")
    records = [
        {"id": i, "image_id": 1, "category_id": category, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
        for i, category in enumerate(annotations, start=1)
    ]
    named = [{"id": number, "name": text} for number, text in categories]
    (folder / name).write_text(json.dumps({"images": images, "annotations": records, "categories": named}))
    return str(folder / name)


def test_classes_of_a_coco_recipe_are_remembered_as_a_choice(tmp_path):
    file = coco(tmp_path, "train.json", [(1, "cat"), (2, "dog"), (3, "bird")], [1, 2, 3])
    train = CocoFormat(file, str(tmp_path), classes=["dog", "cat"]).load()
    assert train.metadata.dropped_classes == ["bird"]
    val = match_classes(CocoFormat(file, str(tmp_path)).load(), train.metadata)
    assert numbers_of(val) == [1, 0] and val.metadata.thing_classes == ["dog", "cat"]


def test_joined_datasets_agree_by_name(tmp_path):
    coco(tmp_path, "a.json", [(1, "cat"), (2, "dog")], [1, 2])
    coco(tmp_path, "b.json", [(1, "dog"), (2, "cat")], [1, 2])
    specs = [CocoFormat(file, ".") for file in ("a.json", "b.json")]
    joined = load_dataset([Built(spec) for spec in specs], str(tmp_path))
    assert joined.metadata.thing_classes == ["cat", "dog"]
    assert [one["category_id"] for item in joined for one in item["annotations"]] == [0, 1, 1, 0]


class Built:
    """What a recipe's block is to `load_dataset`: something that builds a format."""

    where, name = "here", "built"

    def __init__(self, built):
        self.build = lambda: built


def test_other_labels_of_the_same_names_are_read_as_the_models(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.array([[0, 1, 2], [255, 0, 1]], np.uint8)).save(tmp_path / "masks" / "a.png")
    folders = {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}
    dataset = SemanticFolderFormat(**folders, classes=["sky", "road", "tree"]).load()
    known = Metadata("train").set(stuff_classes=["road", "tree", "house", "sky"])
    matched = match_classes(dataset, known)
    found = LabelReader(matched.metadata).read(matched[0])
    assert found.tolist() == [[3, 0, 1], [255, 3, 0]]
    assert matched.metadata.stuff_classes == known.stuff_classes

    mapped = SemanticFolderFormat(**folders, classes=["sky", "road"], label_map={0: 1, 1: 0, 2: 255}).load()
    matched = match_classes(mapped, known)
    assert LabelReader(matched.metadata).read(matched[0]).tolist() == [[0, 3, 255], [255, 0, 3]]
    with pytest.raises(DataError, match=r"(?s)semantic labels of dataset.*water.*label_map"):
        match_classes(SemanticFolderFormat(**folders, classes=["sky", "road", "water"]).load(), known)


def test_masks_of_colors_are_read_as_the_models(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.full((1, 2, 3), [[[9, 0, 0], [0, 9, 0]]], np.uint8)).save(tmp_path / part / "a.png")
    dataset = SemanticFolderFormat(
        str(tmp_path / "images"), str(tmp_path / "masks"), classes=["sky", "road"], colors=[[9, 0, 0], [0, 9, 0]]
    ).load()
    matched = match_classes(dataset, Metadata("train").set(stuff_classes=["road", "sky"]))
    assert LabelReader(matched.metadata).read(matched[0]).tolist() == [[1, 0]]
