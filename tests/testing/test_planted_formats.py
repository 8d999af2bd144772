"""Mistakes of dataset formats, planted one by one: a fast check catches each, in a sentence that names the cause."""

import os

import pytest

from vertebra.data import Dataset, Format, Metadata
from vertebra.registry import FORMATS
from vertebra.structures import BoxMode
from vertebra.testing import FormatConformance


class Lines(Format):
    """`image x y w h class` in each line of a file; subclasses break it."""

    mode, classes, sizes = BoxMode.XYWH_ABS, ["cat", "dog"], (40, 60)

    def __init__(self, path: str) -> None:
        self.path = path

    def load(self, root=None):
        from vertebra.data import resolve_path
        from vertebra.files import read_text

        path = resolve_path(self.path, root)
        lines = [line.split() for line in read_text(path).splitlines()]
        return Dataset(self.records(path.parent, lines), Metadata("lines").set(thing_classes=self.classes))

    def records(self, folder, lines):
        height, width = self.sizes
        for number, (name, *box, label) in enumerate(lines):
            one = {"bbox": self.box([float(side) for side in box]), "bbox_mode": self.mode, "category_id": int(label)}
            facts = {"file_name": str(folder / name), "image_id": number, "height": height, "width": width}
            yield {**facts, "annotations": [one]}

    def box(self, box):
        return box


@FORMATS.register()
class Fractions(Lines):
    def box(self, box):
        return [side / 60 for side in box]


@FORMATS.register()
class WrongMode(Lines):
    def box(self, box):
        return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@FORMATS.register()
class TurnedSize(Lines):
    sizes = (60, 40)


@FORMATS.register()
class Background(Lines):
    classes = ["__background__", "cat", "dog"]


@FORMATS.register()
class UnsortedFiles(Lines):
    def records(self, folder, lines):
        by_name = {line[0]: line for line in lines}
        return super().records(folder, [by_name[name] for name in os.listdir(folder) if name in by_name])


@FORMATS.register()
class Crashes(Lines):
    def records(self, folder, lines):
        assert len(lines[0]) == 6
        return super().records(folder, lines)


@FORMATS.register()
class FromHere(Lines):
    def load(self, root=None):
        return super().load(None)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("lines")
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (60, 40)).save(root / name)
    (root / "boxes.txt").write_text("a.png 10 5 20 20 0\nb.png 30 15 20 20 1\nc.png 30 10 25 25 1\n")
    return root


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("Fractions", "test_every_record_is_as_its_image", "fractions of the image"),
        ("WrongMode", "test_every_record_is_as_its_image", "reaches out of the image.*Is its bbox_mode right"),
        ("TurnedSize", "test_every_record_is_as_its_image", "reaches out of the image|height and width are swapped"),
        ("Background", "test_every_class_has_a_name", "thing_classes begins with '__background__'"),
        ("UnsortedFiles", "test_loading_again_gives_the_same", "sort them"),
        ("Crashes", "test_damaged_files_are_named", "boxes.txt empty: load ends with IndexError.*Raise a DataError"),
        ("FromHere", "test_paths_count_from_root", "relative paths count from root"),
    ],
)
def test_of_a_format(lines, name, test, words):
    settings = {"component": name, "root": lines, "arguments": {"path": "boxes.txt"}}
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        getattr(type("Kit", (FormatConformance,), settings)(), test)()
