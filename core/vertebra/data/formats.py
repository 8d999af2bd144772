"""The contract of dataset formats, and what they load: a `Dataset` of standard dicts and its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vertebra.config.extra_fields import FieldSection
from vertebra.data.catalog import Metadata
from vertebra.data.packed import PackedDicts
from vertebra.data.record_faults import FILE_KEYS, RecordCheck
from vertebra.errors import DataError
from vertebra_eval.coco.data import CocoData
from vertebra_eval.files import Problems
from vertebra_eval.files.file_names import Folders, near_file

__all__ = ["ROOT_HINT", "Dataset", "Format", "resolve_path"]

ROOT_HINT = (
    "A relative path counts from data.root, which the command line can set (data.root=DIR), otherwise from the current "
    "directory"
)


class Dataset(Sequence):
    """Detectron2's standard dataset dicts, packed once, with what is known of the whole dataset.

    A dict has `file_name` (full path), `height`, `width` (pixels, as displayed), `image_id` and `annotations`
    (each `bbox`, `bbox_mode`, `category_id` from 0, and where there are any `segmentation`, `keypoints`, `iscrowd`),
    and where there are any `sem_seg_file_name`, `pan_seg_file_name` and `segments_info`.

    Every dict is checked, whichever format made it. That its files are there is checked by `load_dataset` (and
    `check_files`); with `missing_images: leave` in the metadata, images may be missing.

    Args:
        dicts: the standard dicts; each access later gives a fresh copy, so changes to one are not kept.
        metadata: class names and id mappings.
        checked: the annotations have passed these checks in another Dataset of the same classes, or in COCO's reader.
        columns: what the dicts were made of, for evaluation; data workers do not get it.
    Raises:
        DataError: names the images and annotations at fault (the first 20).
    """

    def __init__(
        self, dicts: Iterable[dict], metadata: Metadata, *, checked: bool = False, columns: CocoData | None = None
    ) -> None:
        _check_names(metadata)
        fields: set[str] = set()
        keys: set[str] = set()
        source = metadata.get("json_file") or metadata.get("panoptic_json")
        what = f"dataset {metadata.name}" + (f" ({source})" if source else "")
        faults, self._missing = Problems(what), Problems(what)
        check = RecordCheck(metadata, faults, annotations=not checked)
        self.dicts: PackedDicts = PackedDicts(_watch(dicts, check, fields, keys, self._missing))
        faults.raise_if_any()
        self.metadata = metadata
        self.columns = columns
        self.annotation_keys = frozenset(keys)
        """All keys of annotations."""
        self.fields = frozenset(fields)
        """Which of `segmentation`, `keypoints`, `sem_seg_file_name`, `pan_seg_file_name` occur anywhere."""

    def check_files(self) -> None:
        """Raises DataError where the dicts name files that were not there when they were packed."""
        self._missing.raise_if_any()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"columns": None}

    @property
    def name(self) -> str:
        """The dataset's name, for messages and file names."""
        return self.metadata.name

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, index: int | slice) -> Any:
        return self.dicts[index]

    def __iter__(self) -> Iterator[dict]:
        return iter(self.dicts)


class Format:
    """A way in which datasets lie on disk. The constructor takes the paths, `load` reads them.

    Subclasses check what they read and raise `DataError` with file and record; several faults in one message.
    """

    component_kind: ClassVar[str] = "format"
    fields: Mapping[str, FieldSection] = {}
    """`data.fields` of the recipe: what the dicts shall have beyond the usual, by the field's name (its `key`, or name,
    is the key in annotations or in the image's dict). Set before `load`. A format that itself knows of more declares
    it in the metadata: `extra_fields={name: {"geometry": ...}}`.
    """

    def load(self, root: str | None = None) -> Dataset:
        """Read the dataset. Relative paths count from `root`, or from the current directory without one."""
        raise NotImplementedError


def resolve_path(path: str, root: str | None) -> Path:
    """`path` as it is where it is absolute, else below `root` (or the current directory); `~` is the home folder."""
    full = Path(path).expanduser()
    return full if full.is_absolute() or root is None else Path(root).expanduser() / full


def _check_names(metadata: Metadata) -> None:
    """Names end up in reports, logs and result files, which are UTF-8."""
    for key in ("thing_classes", "stuff_classes", "keypoint_names"):
        for number, name in enumerate(metadata.get(key) or ()):
            try:
                str(name).encode("utf-8")
            except UnicodeEncodeError as err:
                raise DataError(
                    f"dataset {metadata.name}: {key}[{number}] is {name!a}, which is not text: it holds half of a "
                    "UTF-16 character (a lone surrogate).\n  Rename it in the file"
                ) from err


def _watch(
    dicts: Iterable[dict], check: RecordCheck, fields: set[str], keys: set[str], missing: Problems
) -> Iterator[dict]:
    """Pass the right dicts through; note which fields and keys of annotations occur and which files are missing."""
    folders = Folders()
    wanted = FILE_KEYS[1:] if check.metadata.get("missing_images") == "leave" else FILE_KEYS
    for number, item in enumerate(dicts):
        if not check(item, number):
            continue
        for key in wanted:
            path = item.get(key)
            if path is not None and path not in folders:
                near = near_file(path, folders) if missing.count < missing.limit else ""
                missing.add(path, f"a record names it ({key}), but there is no such file{near}")
        fields.update(key for key in ("sem_seg_file_name", "pan_seg_file_name") if item.get(key))
        for annotation in item.get("annotations") or ():
            keys.update(annotation)
            if annotation.get("segmentation") is not None or "panoptic_id" in annotation:  # which the PNG has
                fields.add("segmentation")
            if annotation.get("keypoints") is not None:
                fields.add("keypoints")
        yield item
