"""FormatConformance: what every dataset format promises."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from vertebra.data import Dataset, Format, Mapper
from vertebra.errors import VertebraError
from vertebra.testing.by_recipe import ByRecipe
from vertebra.testing.checks import checked_spec, require
from vertebra.testing.elsewhere import there
from vertebra.testing.records import alike, check_boxes, check_one_record_per_image, check_outlines

__all__ = ["FormatConformance"]

_READ = 20  # records that are read with their images
_GROUND_TRUTH = {"annotations", "sem_seg_file_name", "pan_seg_file_name"}
"""Keys of records that have classes; a dataset of images alone has none to name."""
_DAMAGE = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "binary": lambda _: b"\0\xff\xfe" * 40,
}


class FormatConformance(ByRecipe):
    """Subclass it with `component`, `root` and `arguments`: a small dataset of this format.

    Attributes:
        component: the format's name, as a recipe writes it.
        root: folder of the dataset, which paths in `arguments` count from. Copies of it are damaged, it itself is not.
        arguments: for its constructor.
        may_be_empty: names of arguments whose files may be empty, such as a list of images to skip.
        recipe, overrides: see `ByRecipe`; two steps are trained on the dataset where a recipe is given.
    """

    kind: ClassVar = "format"
    data: ClassVar = "recipe"
    root: ClassVar[str | Path] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    may_be_empty: ClassVar[Sequence[str]] = ()

    def test_every_record_is_as_its_image(self) -> None:
        """Size, boxes inside, masks and keypoints in the boxes, one record and one id each, and the ground truth of the
        first images can be read."""
        dataset = self.load()
        ids: dict[Any, str] = {}
        for record in dataset:
            where = record["file_name"]
            other = ids.setdefault(record.get("image_id", where), where)
            require(other == where, f"{where} has the image_id {record.get('image_id')!r} of {other}; ids are unique")
            check_boxes(record, where)
        check_one_record_per_image(dataset)
        check_outlines(dataset)
        mapper = Mapper([], training=True, metadata=dataset.metadata, fields=dataset.fields)
        for index, record in enumerate(dataset.dicts[:_READ]):
            try:
                mapper(record, index=index)
            except VertebraError as err:
                raise AssertionError(f"record {index} loads, but cannot be trained on: {err}") from err

    def test_every_class_has_a_name(self) -> None:
        dataset = self.load()
        names = dataset.metadata.get("thing_classes") or dataset.metadata.get("stuff_classes")
        labeled = any(not _GROUND_TRUTH.isdisjoint(record) for record in dataset)
        require(
            bool(names) or not labeled,
            "its metadata names no classes: Metadata(name).set(thing_classes=[...]), or stuff_classes",
        )
        things = dataset.metadata.get("thing_classes") or ["thing"]
        require(
            things[0].strip("_").lower() not in ("background", "bg"),
            f"thing_classes begins with {things[0]!r}: objects have no class for the background, category_ids count "
            "from 0 for the first class of objects",
        )

    def test_loading_again_gives_the_same(self) -> None:
        """Also in another process, and where the file system lists files in another order."""
        first, reader = _plain(self.load()), self.make()
        require(alike(first, _plain(self.load())), "two loads of the same files give other records")
        elsewhere = there(_load, reader, self._root())
        require(
            alike(first, elsewhere),
            "in another process the records, classes or their order differ: sort what comes from a set or a folder",
        )
        with _listed_backwards():
            turned = _plain(self.load())
        require(
            alike(first, turned),
            "records or classes come in the order in which the file system lists files, which differs from machine to "
            "machine: sort them, sorted(folder.iterdir())",
        )

    def test_paths_count_from_root(self) -> None:
        reader, root = self.make(), self._root()
        with tempfile.TemporaryDirectory() as folder:
            try:
                with _working_in(folder):
                    dataset = reader.load(root)
            except (VertebraError, OSError) as err:
                require(
                    not any(self._loads_in(one) for one in (root, Path.cwd())),
                    f"load(root) does not find its files from another folder ({err}); relative paths count from root: "
                    "resolve_path(path, root)",
                )
                self.load()  # which says what the cause is
                raise
            self._fails(lambda: reader.load(str(Path(folder) / "nothing")), "a root that does not exist")
        require(all(Path(record["file_name"]).is_absolute() for record in dataset), "file_name must be a full path")

    def test_a_missing_image_is_named(self) -> None:
        self.load()
        reader = self.make()
        with self._copy() as root:
            dataset = reader.load(str(root))
            image = Path(dataset[0]["file_name"])
            image.unlink()
            self._fails(lambda: reader.load(str(root)).check_files(), f"{image.name} deleted", image.name)

    def test_damaged_files_are_named(self) -> None:
        """Each file that arguments name, and the first of each suffix in a folder that they name: an error of one
        message, or what can be read. For an empty file that is named itself, an error."""
        self.load()
        reader = self.make()
        for name, damage in _DAMAGE.items():
            with self._copy() as root:
                for path, needed in self._files(root):
                    whole = path.read_bytes()
                    path.write_bytes(damage(whole))
                    self._fails(
                        lambda root=root: _used(reader.load(str(root))),
                        f"{path.relative_to(root)} {name}",
                        "" if needed is not None else path.name,
                        must=name == "empty" and bool(needed),
                    )
                    path.write_bytes(whole)

    def test_nothing_is_written(self) -> None:
        before = _listing(self._root())
        self.load()
        require(_listing(self._root()) == before, "loading changes files of the dataset, or writes beside them")

    def test_trains_by_its_recipe(self) -> None:
        self.train(f"data.root={self._root()}")

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Format:
        """A new reader."""
        require(bool(self.component), "set `component` to the component's name, as a recipe writes it")
        self.load_plugins()
        require(bool(self.root), "set `root` to the folder of a small dataset, and `arguments` to what names its files")
        return checked_spec("format", self.component, self.arguments).build()

    def load(self) -> Dataset:
        """The dataset."""
        try:
            dataset = self.make().load(self._root())
        except VertebraError as err:
            raise AssertionError(f"the dataset at `root`, with these `arguments`, does not load: {err}") from err
        require(isinstance(dataset, Dataset), f"load returns a {type(dataset).__name__}, not Dataset(dicts, metadata)")
        require(len(dataset) > 0, "the dataset has no records")
        return dataset

    def _loads_in(self, folder: str | Path) -> bool:
        """Whether it loads while this is the current directory."""
        try:
            with _working_in(folder):
                self.make().load(self._root())
        except (VertebraError, OSError):
            return False
        return True

    def _root(self) -> str:
        return str(Path(self.root).resolve())

    def _files(self, root: Path) -> Iterator[tuple[Path, bool | None]]:
        """What is damaged, and whether a dataset needs what is in it; None: it is one of many in a folder."""
        for name, argument in self._all_arguments().items():
            for value in argument if isinstance(argument, (list, tuple)) else (argument,):
                path = root / value if isinstance(value, str) else None
                if path is not None and path.is_file():
                    yield path, name not in self.may_be_empty
                elif path is not None and value and path.is_dir():
                    yield from ((one, None) for one in _first_of_each_kind(path))

    def _all_arguments(self) -> dict[str, Any]:
        """Of the constructor, with its defaults: these may name files too."""
        parameters = inspect.signature(type(self.make())).parameters.values()
        return {one.name: one.default for one in parameters if one.default is not one.empty} | dict(self.arguments)

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(shutil.copytree(self._root(), Path(folder) / "copy"))

    def _fails(self, load: Any, what: str, words: str = "", *, must: bool = True) -> None:
        """It ends with an error of Vertebra's that has these words, or (without `must`) well."""
        try:
            load()
        except VertebraError as err:
            stem = words.rpartition(".")[0] or words  # an image's annotations, or an annotation file's image
            named = f"{stem}." in str(err) or (len(stem) > 2 and stem in str(err))
            require(named or not words, f"{what}: the error does not name {words}: {err}")
            return
        except AssertionError:
            raise
        except Exception as err:
            raise AssertionError(
                f"{what}: load ends with {type(err).__name__}: {err}. Raise a DataError that names file and place"
            ) from err
        hint = ". If such a file may be empty, name its argument in may_be_empty" if what.endswith(" empty") else ""
        require(not must, f"{what}: load takes no notice. Raise a DataError that names the file{hint}")


@contextmanager
def _working_in(folder: str | Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _plain(dataset: Dataset) -> tuple[list[dict], dict]:
    names = ("thing_classes", "stuff_classes", "keypoint_names")
    return [dict(record) for record in dataset], {name: dataset.metadata.get(name) for name in names}


def _load(reader: Format, root: str) -> tuple[list[dict], dict]:
    return _plain(reader.load(root))


def _first_of_each_kind(folder: Path) -> list[Path]:
    """The first file of each suffix, in the folder or below."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(path.suffix.lower(), path)
    return list(found.values())


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
