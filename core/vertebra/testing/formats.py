"""FormatConformance: what every dataset format promises."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from vertebra.data import Dataset, Format, Mapper
from vertebra.errors import VertebraError
from vertebra.structures import BoxMode
from vertebra.testing.checks import checked_spec, require
from vertebra.testing.elsewhere import there
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["FormatConformance"]

_ROOM = 1.0  # pixels that a box may reach out of its image
_READ = 20  # records that are read with their images
_DAMAGE = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "binary": lambda _: b"\0\xff\xfe" * 40,
}


class FormatConformance:
    """Subclass it with `component`, `root` and `arguments`: a small dataset of this format.

    Attributes:
        component: the format's name, as a recipe writes it.
        root: folder of the dataset, which paths in `arguments` count from. Copies of it are damaged, it itself is not.
        arguments: for its constructor.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained on it where it is given.
    """

    component: ClassVar[str] = ""
    root: ClassVar[str | Path] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""

    def test_every_record_is_as_its_image(self) -> None:
        """Size, boxes inside, one id each, and the ground truth of the first images can be read."""
        dataset = self.load()
        ids: dict[Any, str] = {}
        for record in dataset:
            where = record["file_name"]
            other = ids.setdefault(record.get("image_id", where), where)
            require(other == where, f"{where} has the image_id {record.get('image_id')!r} of {other}; ids are unique")
            self._check_boxes(record, where)
        mapper = Mapper([], training=True, metadata=dataset.metadata, fields=dataset.fields)
        for index, record in enumerate(dataset.dicts[:_READ]):
            try:
                mapper(record, index=index)
            except VertebraError as err:
                raise AssertionError(f"record {index} loads, but cannot be trained on: {err}") from err

    def test_every_class_has_a_name(self) -> None:
        dataset = self.load()
        names = dataset.metadata.get("thing_classes") or dataset.metadata.get("stuff_classes")
        require(bool(names), "its metadata names no classes: Metadata(name).set(thing_classes=[...]), or stuff_classes")
        things = dataset.metadata.get("thing_classes") or ["thing"]
        require(
            things[0].strip("_").lower() not in ("background", "bg"),
            f"thing_classes begins with {things[0]!r}: objects have no class for the background, category_ids count "
            "from 0 for the first class of objects",
        )

    def test_loading_again_gives_the_same(self) -> None:
        """Also in another process, and where the file system lists files in another order."""
        first, reader = _plain(self.load()), self.make()
        require(first == _plain(self.load()), "two loads of the same files give other records")
        elsewhere = there(_load, reader, self._root())
        require(
            first == elsewhere,
            "in another process the records, classes or their order differ: sort what comes from a set or a folder",
        )
        with _listed_backwards():
            turned = _plain(self.load())
        require(
            first == turned,
            "records or classes come in the order in which the file system lists files, which differs from machine to "
            "machine: sort them, sorted(folder.iterdir())",
        )

    def test_paths_count_from_root(self) -> None:
        reader, root, before = self.make(), self._root(), Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                dataset = reader.load(root)
            except (VertebraError, OSError) as err:
                raise AssertionError(
                    f"load(root) does not find its files from another folder ({err}); relative paths count from root: "
                    "resolve_path(path, root)"
                ) from err
            finally:
                os.chdir(before)
            self._fails(lambda: reader.load(str(Path(folder) / "nothing")), "a root that does not exist")
        require(all(Path(record["file_name"]).is_absolute() for record in dataset), "file_name must be a full path")

    def test_a_missing_image_is_named(self) -> None:
        reader = self.make()
        with self._copy() as root:
            dataset = reader.load(str(root))
            image = Path(dataset[0]["file_name"])
            image.unlink()
            self._fails(lambda: reader.load(str(root)).check_files(), f"{image.name} deleted", image.name)

    def test_damaged_files_are_named(self) -> None:
        """Each file that `arguments` name, damaged: an error of one message, or what can be read."""
        reader = self.make()
        for name, damage in _DAMAGE.items():
            with self._copy() as root:
                for path in self._files(root):
                    whole = path.read_bytes()
                    path.write_bytes(damage(whole))
                    self._fails(
                        lambda root=root: _used(reader.load(str(root))),
                        f"{path.name} {name}",
                        must=name == "empty",
                    )
                    path.write_bytes(whole)

    def test_nothing_is_written(self) -> None:
        before = _listing(self._root())
        self.load()
        require(_listing(self._root()) == before, "loading changes files of the dataset, or writes beside them")

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(
                self.recipe, "format", self.component, [f"data.root={self._root()}"], generated=False
            )

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Format:
        """A new reader."""
        require(bool(self.component), "set `component` to the component's name, as a recipe writes it")
        require(bool(self.root), "set `root` to the folder of a small dataset, and `arguments` to what names its files")
        return checked_spec("format", self.component, self.arguments).build()

    def load(self) -> Dataset:
        """The dataset."""
        dataset = self.make().load(self._root())
        require(isinstance(dataset, Dataset), f"load returns a {type(dataset).__name__}, not Dataset(dicts, metadata)")
        require(len(dataset) > 0, "the dataset has no records")
        return dataset

    def _root(self) -> str:
        return str(Path(self.root).resolve())

    def _files(self, root: Path) -> list[Path]:
        """The files that arguments name."""
        named = [value for value in self.arguments.values() if isinstance(value, str)]
        return [path for value in named if (path := root / value).is_file()]

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(shutil.copytree(self._root(), Path(folder) / "copy"))

    def _fails(self, load: Any, what: str, words: str = "", *, must: bool = True) -> None:
        """It ends with an error of Vertebra's that has these words, or (without `must`) well."""
        try:
            load()
        except VertebraError as err:
            require(words in str(err), f"{what}: the error does not name {words}: {err}")
            return
        except AssertionError:
            raise
        except Exception as err:
            raise AssertionError(
                f"{what}: load ends with {type(err).__name__}: {err}. Raise a DataError that names file and place"
            ) from err
        require(not must, f"{what}: load takes no notice. Raise a DataError that names the file")

    def _check_boxes(self, record: dict[str, Any], where: str) -> None:
        height, width = record.get("height"), record.get("width")
        for number, one in enumerate(record.get("annotations", ())):
            if one["bbox_mode"] not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) or height is None or width is None:
                continue
            x0, y0, x1, y1 = BoxMode.convert(list(one["bbox"]), one["bbox_mode"], BoxMode.XYXY_ABS)
            inside = min(x0, y0) >= -_ROOM and x1 <= width + _ROOM and y1 <= height + _ROOM
            require(
                inside or bool(one.get("iscrowd")),
                f"{where}: annotation {number}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) reaches out of the image of "
                f"{width} x {height} pixels (width x height). Is its bbox_mode right (corners XYXY_ABS, corner and "
                "size XYWH_ABS), are x and y in order, is it in pixels?",
            )
            require(
                max(x1 - x0, y1 - y0) > 1 or max(x1, y1) > 1,
                f"{where}: annotation {number}: the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies in the first pixel. Are "
                "its numbers fractions of the image? Multiply by width and height",
            )


def _plain(dataset: Dataset) -> tuple[list[dict], dict]:
    names = ("thing_classes", "stuff_classes", "keypoint_names")
    return [dict(record) for record in dataset], {name: dataset.metadata.get(name) for name in names}


def _load(reader: Format, root: str) -> tuple[list[dict], dict]:
    return _plain(reader.load(root))


def _used(dataset: Dataset) -> None:
    if not len(dataset):
        raise AssertionError("a dataset without records is loaded; raise a DataError that names the file")


def _listing(root: str) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(Path(root).rglob("*"))}


@contextmanager
def _listed_backwards() -> Iterator[None]:
    """Folders list their files in another order, for whoever reads them by os.listdir, as pathlib and glob do."""
    listdir, scandir = os.listdir, os.scandir

    class Turned:
        def __init__(self, path: Any = ".") -> None:
            with scandir(path) as found:
                self.entries = iter(sorted(found, key=lambda one: one.name, reverse=True))

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None: ...

        def close(self) -> None: ...

    turned = {"listdir": lambda path=".": sorted(listdir(path), reverse=True), "scandir": Turned}
    for name, function in turned.items():
        setattr(os, name, function)
    try:
        yield
    finally:
        os.listdir, os.scandir = listdir, scandir
