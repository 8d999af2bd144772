"""What the numbers and colors in label files mean."""

import numpy as np
import pytest
from PIL import Image

from vertebra.data import LabelReader, Metadata
from vertebra.errors import DataError


@pytest.fixture
def label_file(tmp_path):
    def write(values, mode=None, **own):
        path = tmp_path / "labels.png"
        values = np.asarray(values)
        picture = Image.fromarray(values.astype(np.uint16 if values.max() > 255 else np.uint8))
        if mode:
            picture = picture.convert(mode, palette=Image.Palette.ADAPTIVE)
        picture.save(path)
        return {"sem_seg_file_name": str(path), **own}

    return write


def metadata(**facts):
    return Metadata("x").set(stuff_classes=["a", "b", "c"], **facts)


def test_numbers_are_classes_and_255_none(label_file):
    labels = LabelReader(metadata()).read(label_file([[0, 1, 2, 255]]))
    assert labels.tolist() == [[0, 1, 2, 255]] and labels.dtype == np.uint8


def test_the_number_for_none_becomes_255_whatever_it_is(label_file):
    assert LabelReader(metadata(ignore_label=3)).read(label_file([[0, 3, 2]])).tolist() == [[0, 255, 2]]
    assert LabelReader(metadata(ignore_label=0)).read(label_file([[0, 1, 2]])).tolist() == [[255, 1, 2]]
    assert LabelReader(metadata(ignore_label=0), none=3).read(label_file([[0, 1, 2]])).tolist() == [[3, 1, 2]]


def test_a_map_says_what_numbers_mean(label_file):
    reader = LabelReader(metadata(label_map={0: 0, 128: 1, 255: 2, 7: 255}))
    assert reader.read(label_file([[0, 128, 255, 7]])).tolist() == [[0, 1, 2, 255]]


def test_an_images_own_map_goes_before_the_datasets(label_file):
    reader = LabelReader(metadata(label_map={1: 0}))
    assert reader.read(label_file([[1, 2]], sem_seg_label_map={1: 2, 2: 255})).tolist() == [[2, 255]]


def test_sixteen_bits_are_read(label_file):
    reader = LabelReader(metadata(label_map={1000: 1, 40000: 255}))
    assert reader.read(label_file([[1000, 40000]])).tolist() == [[1, 255]]
    reader = LabelReader(Metadata("x").set(stuff_classes=list(map(str, range(400))), ignore_label=65535), none=400)
    labels = reader.read(label_file([[399, 65535]]))
    assert labels.tolist() == [[399, 400]] and labels.dtype == np.int32


def test_one_bit_masks_are_two_classes(label_file):
    reader = LabelReader(metadata())
    assert reader.read(label_file([[0, 255]], mode="1")).tolist() == [[0, 1]]


def test_colors_are_looked_up_in_any_kind_of_picture(label_file):
    reader = LabelReader(metadata(label_colors=[[[0, 0, 0], 255], [[255, 0, 0], 1], [[9, 9, 9], 2]]))
    pixels = np.uint8([[[0, 0, 0], [255, 0, 0], [9, 9, 9]]])
    assert reader.read(label_file(pixels)).tolist() == [[255, 1, 2]]
    assert reader.read(label_file(pixels, mode="P")).tolist() == [[255, 1, 2]]
    assert reader.read(label_file(pixels, mode="RGBA")).tolist() == [[255, 1, 2]]
    assert reader.read(label_file([[0, 9]])).tolist() == [[255, 2]]  # gray


def test_where_nothing_is_known_of_the_classes_every_number_passes(label_file):
    assert LabelReader().read(label_file([[0, 77, 255]])).tolist() == [[0, 77, 255]]
    assert LabelReader(Metadata("x").set(ignore_label=77)).read(label_file([[0, 77]])).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("facts", "values", "words"),
    [
        (
            {},
            [[0, 3, 9, 9]],
            r"labels\.png: labels 3, 9 on 3 pixels belong to no class; there are 3 classes from 0, and 255",
        ),
        ({"ignore_label": 11}, [[255]], "and 11 for pixels without one.*ignore_label.*label_map"),
        ({"label_map": {0: 0, 255: 1}}, [[0, 254]], "labels 254 on 1 pixels.*label_map has 0, 255.*Add them"),
        ({}, [[70000]], "labels 4464 on 1"),  # 70000 modulo 65536 is what 16 bits hold
        (
            {"label_colors": [[[0, 0, 0], 0]]},
            [[[0, 0, 0], [1, 2, 3]]],
            r"colors \[1, 2, 3\] on 1 pixels mean no class",
        ),
        ({}, [[[0, 0, 0], [1, 2, 3]]], "mode RGB"),
    ],
)
def test_what_means_nothing_is_told_with_file_and_remedy(label_file, facts, values, words):
    record = label_file(values)
    with pytest.raises(DataError, match=f"(?s){words}"):
        LabelReader(metadata(**facts)).read(record)


def test_many_strange_numbers_are_told_by_a_few(label_file):
    with pytest.raises(DataError, match=r"labels 3, 4, 5, 6, 7, \.\.\. on 197 pixels"):
        LabelReader(metadata()).read(label_file([list(range(200))]))


def test_255_cannot_be_a_class_and_none_at_once(label_file):
    many = Metadata("x").set(stuff_classes=list(map(str, range(300))), ignore_label=65535)
    with pytest.raises(DataError, match=r"names 300 labels.*at most 255"):
        LabelReader(many).read(label_file([[0]]))
