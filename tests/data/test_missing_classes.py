"""Named classes that the label files do not show, in words with the remedy."""

import re

import pytest

from vertebra.data import Dataset, Metadata, SemanticFolderFormat
from vertebra.data.facts import describe_dataset
from vertebra.data.missing_classes import missing_labels
from vertebra.data.semantic.label_facts import count_labels, look_for_labels
from vertebra.data.shapes.format import ShapesFormat


@pytest.fixture
def dataset(write_pair, tmp_path):
    """A function: one pair for each of the label arrays, as a dataset."""

    def make(labels, classes=("bg", "fg"), **arguments):
        for number, one in enumerate(labels):
            write_pair(f"images/{number:03}.png", f"masks/{number:03}.png", one)
        return SemanticFolderFormat("images", "masks", list(classes), **arguments).load(str(tmp_path))

    return make


def missing(dataset, **limit):
    return missing_labels(look_for_labels(dataset, **limit), dataset.metadata)


HALF = [[0, 0], [255, 255]]
THREE = {"classes": ["a", "b", "c"]}


def test_masks_of_0_and_255_hold_one_class_and_the_remedy_is_written_out(dataset):
    found = missing(dataset([HALF, HALF]))
    assert found.nothing
    assert "the 2 label files hold only one class, bg; 50.0% of the pixels have none" in found.text
    assert "The number 255 means no class. If it is one" in found.text and "label_map: {0: 0, 255: 1}" in found.text


@pytest.mark.parametrize(
    ("labels", "arguments", "words", "nothing"),
    [
        (
            [[[0, 1], [255, 255]]],
            {"classes": ["a", "b", "c"]},
            r"no pixel has the class c.*\{0: 0, 1: 1, 255: 2\}",
            False,
        ),
        ([[[0, 1], [1, 1]]], THREE, r"no pixel has the class c.*If the files have other", False),
        ([HALF], {"label_map": {0: 0, 255: 255, 1: 1}}, r"only one class.*Check what the files' values mean", True),
        ([[[1, 1]]], {}, r"only one class, fg; 0\.0% of the pixels", True),
        ([[[9, 1]]], {"ignore_label": 9}, r"only one class, fg.*\{1: 1, 9: 0\}", True),
        ([[[255, 255]]] * 3, {}, r"in the 3 label files every pixel is ignored", True),
        ([HALF], {"classes": ["fg"]}, r"fg is the only class.*\[background, fg\], label_map: \{255: 0, 0: 1\}", False),
    ],
)
def test_each_kind_of_missing_class_is_named(dataset, labels, arguments, words, nothing):
    found = missing(dataset(labels, **arguments))
    assert re.search("(?s)" + words, found.text), found.text
    assert found.nothing == nothing


def test_nothing_is_said_where_each_class_has_a_pixel(dataset):
    assert missing(dataset([HALF, [[255, 1]]])) is None


def test_reading_ends_with_the_last_class_and_goes_on_until_there_are_two(dataset):
    late = dataset([HALF] * 9 + [[[1, 1]]] + [HALF] * 10)
    facts = look_for_labels(late, limit=4)
    assert missing_labels(facts, late.metadata) is None and 4 < facts.files < 20
    early = look_for_labels(dataset([[[0, 1]]] + [HALF] * 10))
    assert early.files == 1


def test_at_most_limit_files_are_read_and_the_text_says_how_many(dataset):
    rare = dataset([[[0, 1]]] * 20, classes=("a", "b", "rare"))
    assert "in the 4 label files read, of 20, no pixel has the class rare" in missing(rare, limit=4).text


def test_a_faulty_file_is_the_loaders_to_report(dataset, tmp_path):
    faulty = dataset([[[0, 1]], [[0, 1]], [[7, 7]]], classes=("a", "b", "c"))
    (tmp_path / "masks/001.png").write_bytes(b"no picture")
    assert "in the 1 label files read, of 3, no pixel has the class c" in missing(faulty).text


def test_labels_of_panoptic_files_are_counted_by_the_same_reader():
    shapes = ShapesFormat(images=3, val_images=2, split="val", labels=["semantic", "panoptic"]).load()
    records = [{key: value for key, value in one.items() if key != "sem_seg_file_name"} for one in shapes]
    metadata = shapes.metadata
    facts = {key: value for key, value in metadata.as_dict().items() if key != "name"}
    panoptic = Dataset(records, Metadata("p").set(**facts | {"panoptic_labels": "all"}))
    counted = count_labels(panoptic)
    assert counted.files == 2 and counted.pixels.sum() == sum(one["height"] * one["width"] for one in records)


def test_info_warns_after_the_table(dataset):
    lines = describe_dataset(dataset([HALF])).splitlines()
    assert lines[-4].split() == ["fg", "0.00%", "0"]
    assert lines[-2].startswith("warning: dataset") and "label_map: {0: 0, 255: 1}" in lines[-1]
