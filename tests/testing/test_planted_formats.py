"""Mistakes of dataset formats, planted one by one: a fast check catches each, in a sentence that names the cause."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from vertebra.data import Dataset, Format, Metadata, resolve_path
from vertebra.errors import DataError
from vertebra.files import read_text
from vertebra.registry import FORMATS
from vertebra.structures import BoxMode
from vertebra.testing import FormatConformance


def read(path):
    try:
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: {err}") from err


class Lines(Format):
    """`image x y w h class` in each line of a file; subclasses break it."""

    mode, classes, sizes = BoxMode.XYWH_ABS, ["cat", "dog"], (40, 60)

    def __init__(self, path: str) -> None:
        self.path = path

    def load(self, root=None):
        path = resolve_path(self.path, root)
        try:
            records = list(self.records(path.parent, [line.split() for line in read(path)]))
        except ValueError as err:
            raise DataError(f"{path}: {err}") from err
        if not records:
            raise DataError(f"{path}: it names no images")
        return Dataset(records, Metadata("lines").set(thing_classes=self.classes))

    def records(self, folder, lines):
        objects = {}
        for name, *box, label in lines:
            box = [float(side) for side in box]
            one = {"bbox": self.box(box), "bbox_mode": self.mode, "category_id": int(label)}
            objects.setdefault(name, []).append({**one, **self.more(box)})
        for number, (name, annotations) in enumerate(objects.items()):
            yield self.record(folder / name, number, annotations)

    def record(self, path, number, annotations):
        height, width = self.sizes
        facts = {"file_name": str(path), "image_id": number, "height": height, "width": width}
        return {**facts, "annotations": annotations}

    def box(self, box):
        return box

    def more(self, box):
        """Of an annotation; its box is x, y, w, h."""
        return {}


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
class Nameless(Lines):
    classes = []


@FORMATS.register()
class ImagesAlone(Nameless):
    """Right: without ground truth there are no classes."""

    def records(self, folder, lines):
        for record in super().records(folder, lines):
            yield {key: value for key, value in record.items() if key != "annotations"}


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


@FORMATS.register()
class PerLine(Lines):
    """A record for each line, so that an image of two objects comes twice."""

    def records(self, folder, lines):
        for number, line in enumerate(lines):
            (record,) = super().records(folder, [line])
            yield {**record, "image_id": number}


@FORMATS.register()
class FromOne(Lines):
    classes = ["cat"]


@FORMATS.register()
class PolygonsTurned(Lines):
    """y before x."""

    def more(self, box):
        x, y, w, h = box
        return {"segmentation": [[y, x, y, x + w, y + h, x + w, y + h, x]]}


@FORMATS.register()
class PolygonsInFractions(Lines):
    def more(self, box):
        x, y, w, h = box
        return {"segmentation": [[x / 60, y / 40, (x + w) / 60, y / 40, (x + w) / 60, (y + h) / 40]]}


class Corners(Lines):
    def load(self, root=None):
        dataset = super().load(root)
        dataset.metadata.set(keypoint_names=["top left", "bottom right"], keypoint_flip_map=[])
        return dataset

    def more(self, box):
        x, y, w, h = box
        return {"keypoints": self.points(x, y, x + w, y + h)}


@FORMATS.register()
class KeypointsTurned(Corners):
    def points(self, x0, y0, x1, y1):
        return [y0, x0, 2, y1, x1, 2]


@FORMATS.register()
class RightCorners(Corners):
    """Polygons and keypoints where they belong, a third of the points not labeled."""

    def points(self, x0, y0, x1, y1):
        return [x0, y0, 2, 0, 0, 0]

    def more(self, box):
        x, y, w, h = box
        return {**super().more(box), "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


@FORMATS.register()
class Arrays(Lines):
    """Boxes, masks and a map as arrays, a number that is not known as nan."""

    def box(self, box):
        return np.array(box)

    def more(self, box):
        x, y, w, h = box
        return {"segmentation": [np.array([x, y, x + w, y, x + w, y + h])]}

    def record(self, path, number, annotations):
        facts = super().record(path, number, annotations)
        return {**facts, "depth": np.ones(self.sizes, np.float32), "exposure": math.nan}


@FORMATS.register()
class Texts(Lines):
    """A record for each phrase about an image."""

    def records(self, folder, lines):
        for number, record in enumerate(super().records(folder, [*lines, *lines])):
            yield {**record, "text": "left"}
            yield {**record, "image_id": f"{number} again", "text": "right"}


@FORMATS.register()
class OnePerImage(Lines):
    """A file of annotations per image, and the list of those to skip."""

    def __init__(self, path: str, labels: str = "labels", skip: str | None = None) -> None:
        super().__init__(path)
        self.labels, self.skip = labels, skip

    def load(self, root=None):
        path, folder = resolve_path(self.path, root), resolve_path(self.labels, root)
        skipped = read(resolve_path(self.skip, root)) if self.skip else []
        names = [line.split()[0] for line in read(path) if line]
        if not names:
            raise DataError(f"{path}: it names no images")
        records = [
            self.record(path.parent / name, name, list(self.annotations(folder / f"{Path(name).stem}.txt")))
            for name in dict.fromkeys(names)
            if name not in skipped
        ]
        return Dataset(records, Metadata("one per image").set(thing_classes=self.classes))

    def annotations(self, path):
        for number, line in enumerate(read(path), 1):
            try:
                *box, label = map(float, line.split())
                yield {"bbox": box, "bbox_mode": self.mode, "category_id": int(label)}
            except ValueError as err:
                raise DataError(f"{path}, line {number}: {err}") from err


@FORMATS.register()
class CrashesOnLabels(OnePerImage):
    def annotations(self, path):
        for line in read(path):
            x, y, w, h, label = line.split()
            yield {"bbox": [float(x), float(y), float(w), float(h)], "bbox_mode": self.mode, "category_id": int(label)}


@FORMATS.register()
class NamesTheListAlone(OnePerImage):
    def annotations(self, path):
        try:
            yield from super().annotations(path)
        except DataError as err:
            raise DataError(f"{self.path}: wrong annotations") from err


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("lines")
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (60, 40)).save(root / name)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / name.replace(".png", ".txt")).write_text("10 5 20 20 0\n")
    lines = ["a.png 10 5 20 20 0", "a.png 25 5 20 20 0", "b.png 30 15 20 20 1", "c.png 30 10 25 25 1"]
    (root / "boxes.txt").write_text("\n".join(lines) + "\n")
    (root / "skipped.txt").write_text("c.png\n")
    return root


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("Fractions", "test_every_record_is_as_its_image", "fractions of the image"),
        ("WrongMode", "test_every_record_is_as_its_image", "reaches out of the image.*Is its bbox_mode right"),
        ("TurnedSize", "test_every_record_is_as_its_image", "reaches out of the image|height and width are swapped"),
        ("Background", "test_every_class_has_a_name", "thing_classes begins with '__background__'"),
        ("Nameless", "test_every_class_has_a_name", "names no classes"),
        ("UnsortedFiles", "test_loading_again_gives_the_same", "sort them"),
        ("Crashes", "test_damaged_files_are_named", "boxes.txt empty: load ends with IndexError.*Raise a DataError"),
        ("FromHere", "test_paths_count_from_root", "relative paths count from root"),
        ("FromOne", "test_paths_count_from_root", "does not load: .*category_id is 1, expected 0 to 0"),
        ("FromOne", "test_damaged_files_are_named", "does not load: .*category_id is 1, expected 0 to 0"),
        ("PerLine", "test_every_record_is_as_its_image", "a.png has two records, 0 and 1: an image has one"),
        ("PolygonsTurned", "test_every_record_is_as_its_image", "masks .*in their boxes.*fit with x and y exchanged"),
        ("PolygonsInFractions", "test_every_record_is_as_its_image", "They would fit multiplied by width and height"),
        ("KeypointsTurned", "test_every_record_is_as_its_image", "keypoints .*in their boxes.*fit with x and y exch"),
        ("CrashesOnLabels", "test_damaged_files_are_named", "labels/a.txt cut in half: load ends with ValueError"),
        ("NamesTheListAlone", "test_damaged_files_are_named", "labels/a.txt binary: the error does not name a.txt"),
        ("OnePerImage", "test_damaged_files_are_named", "skipped.txt empty: load takes no notice.*may_be_empty"),
    ],
)
def test_of_a_format(lines, name, test, words):
    skip = {"skip": "skipped.txt"} if name == "OnePerImage" else {}
    settings = {"component": name, "root": lines, "arguments": {"path": "boxes.txt", **skip}}
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        getattr(type("Kit", (FormatConformance,), settings)(), test)()


@pytest.mark.parametrize("name", ["RightCorners", "Arrays", "Texts", "OnePerImage"])
@pytest.mark.parametrize("check", [name for name in dir(FormatConformance) if name.startswith("test_")])
def test_a_right_format_passes(lines, name, check):
    skip = {"skip": "skipped.txt"} if name == "OnePerImage" else {}
    settings = {"component": name, "root": lines, "arguments": {"path": "boxes.txt", **skip}, "may_be_empty": ["skip"]}
    getattr(type("Kit", (FormatConformance,), settings)(), check)()


def test_a_dataset_of_images_alone_needs_no_classes(lines):
    settings = {"component": "ImagesAlone", "root": lines, "arguments": {"path": "boxes.txt"}}
    type("Kit", (FormatConformance,), settings)().test_every_class_has_a_name()
