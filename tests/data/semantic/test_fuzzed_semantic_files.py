"""Files of class names and label files with random faults: read, or refused with a DataError."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzzing import bounded, changed_bytes, changed_json, changed_text
from vertebra.data.semantic.folder_format import SemanticFolderFormat
from vertebra.data.semantic.label_reader import LabelReader
from vertebra.errors import DataError

CLASSES = {
    "ignore_label": 255,
    "classes": [
        {"index": 0, "name": "road", "color": [128, 64, 128]},
        {"index": 1, "name": "car", "colour": [0, 0, 142], "mask_value": 7},
        {"index": 2, "name": "void", "color": [0, 0, 0], "ignore": True},
    ],
}
NAMES = "road\ncar\n# a comment\nsky\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images with label files in numbers and in colors."""
    folder = tmp_path_factory.mktemp("semantic")
    for name in ("images", "masks", "colors"):
        (folder / name).mkdir()
    labels = np.zeros((8, 9), np.uint8)
    labels[4:] = 1
    for n in range(3):
        Image.new("RGB", (9, 8)).save(folder / "images" / f"{n}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{n}.png")
        Image.fromarray(np.stack([labels * 0, labels * 0, labels * 142], -1)).save(folder / "colors" / f"{n}.png")
    return folder


def read(folder, classes, colors=False):
    masks = "colors" if colors else "masks"
    try:
        form = SemanticFolderFormat(images="images", masks=masks, classes=classes, colors=colors)
        dataset = form.load(str(folder))
        reader = LabelReader(dataset.metadata)
        for record in dataset:
            labels = reader.read(record)
            assert ((labels < len(dataset.metadata.stuff_classes)) | (labels == 255)).all()
    except DataError as err:
        assert str(err).strip()


@bounded
@given(content=changed_json(CLASSES), colors=st.booleans())
def test_classes_as_json(folder, content, colors):
    (folder / "classes.json").write_bytes(content)
    read(folder, "classes.json", colors)


@bounded
@given(content=changed_text(NAMES))
def test_classes_as_text(folder, content):
    (folder / "classes.txt").write_bytes(content)
    read(folder, "classes.txt")


@bounded
@given(data=st.data(), colors=st.booleans())
def test_label_files(folder, data, colors):
    source = folder / ("colors" if colors else "masks") / "0.png"
    whole = source.read_bytes()
    (folder / "classes.json").write_text(
        '{"classes": [{"name": "a", "color": [0, 0, 0]}, {"name": "b", "color": [0, 0, 142]}]}'
    )
    try:
        source.write_bytes(data.draw(changed_bytes(whole)))
        read(folder, "classes.json", colors)
    finally:
        source.write_bytes(whole)
