"""Label files to classes: what the numbers or colors of a dataset's masks mean, looked up while reading.

The files stay as they are. A dataset's metadata says how to read them:

- `stuff_classes`: names of the K classes, numbered from 0;
- `ignore_label`: the number of pixels without a class, 255 if it says nothing;
- `label_map`: {number in the files: class, or 255 for none}; without one the numbers are the classes;
- `label_colors`: [[r, g, b], class, or 255 for none] pairs, for masks that hold colors instead of numbers.

Where it has `panoptic_labels`, labels come from the panoptic PNG (see `panoptic_labels`). A dataset dict may have a
`sem_seg_label_map` of its own, which goes before the dataset's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertebra.data.catalog import Metadata
from vertebra.data.images.read import read_image, read_labels
from vertebra.data.panoptic_labels import PanopticLabels
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL

__all__ = ["LabelReader", "label_file"]

_RANGE = 65536  # label files have 8 or 16 bits


class LabelReader:
    """Reads the label files of one dataset as classes 0 to K - 1, and `none` where a pixel has no class.

    Args:
        metadata: the dataset's; where it names no classes, every number passes.
        none: the number for pixels without a class.
    """

    def __init__(self, metadata: Metadata | None = None, none: int = IGNORED_LABEL) -> None:
        metadata = metadata or Metadata()
        self.num_classes = len(metadata.get("stuff_classes") or ()) or None
        self.ignore_label = metadata.get("ignore_label", IGNORED_LABEL)
        self.none = none
        self.label_map = metadata.get("label_map")
        colors = metadata.get("label_colors")
        self.colors = None if colors is None else _packed(colors)
        self.table = self._table(self.label_map)
        self.panoptic = PanopticLabels(metadata, none) if metadata.get("panoptic_labels") else None
        self.few = max(none, self.num_classes or 0) <= 255  # fits in a byte

    def has_labels(self, record: Mapping[str, Any]) -> bool:
        """Whether a dataset dict names a file that labels can be read from."""
        return bool(record.get("sem_seg_file_name") or (self.panoptic and record.get("pan_seg_file_name")))

    def read(self, record: Mapping[str, Any], size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) classes of the label file that a dataset dict names; uint8, or int32 where they need more.

        Args:
            size: (height, width) of the image, where it is known.
        Raises:
            DataError: no such file, damaged, of another size, or it holds numbers or colors that mean no class: names
                the file, those and how to fix it.
        """
        path = label_file(record)
        if self.num_classes is not None and self.none < self.num_classes:
            raise DataError(
                f"{path}: the dataset names {self.num_classes} labels, but in training {self.none} stands for pixels "
                f"without one: at most {self.none} labels can be learned"
            )
        if self.panoptic and not record.get("sem_seg_file_name"):
            return _sized(self.panoptic.read(record).astype(np.uint8 if self.few else np.int32), size, path)
        if self.colors is not None:
            return _sized(self._from_colors(path, *self.colors), size, path)
        labels = _sized(read_labels(path), size, path)
        own = record.get("sem_seg_label_map")
        table = self.table if own is None else self._table(own)
        if table is None:
            return np.where(labels == self.ignore_label, self.none, labels).astype(self._type(labels))
        if labels.dtype != np.uint8:
            labels = np.where((labels < 0) | (labels >= _RANGE), _RANGE, labels)
        found = table[labels]
        if found.min(initial=0) < 0:
            strange = read_labels(path)[found < 0]
            raise DataError(self._strange(path, _few(strange), len(strange), own or self.label_map))
        return found.astype(np.uint8 if self.few else np.int32)

    def _table(self, label_map: Mapping[Any, int] | None) -> np.ndarray | None:
        """(65537,) int32: number in a file to class or `none`; -1 means nothing, as does the last place."""
        table = np.full(_RANGE + 1, -1, np.int32)
        if label_map is None:
            if self.num_classes is None:
                return None
            table[: self.num_classes] = np.arange(self.num_classes)
            if 0 <= self.ignore_label < _RANGE:
                table[self.ignore_label] = self.none
            return table
        for number, meaning in label_map.items():
            table[int(number)] = self.none if meaning == IGNORED_LABEL else meaning
        return table

    def _from_colors(self, path: str, codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
        pixels = read_image(path).astype(np.int32)  # (H, W, 3), palettes and gray too
        pixels = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        place = np.searchsorted(codes, pixels).clip(max=len(codes) - 1)
        known = codes[place] == pixels
        if not known.all():
            found, counts = np.unique(pixels[~known], return_counts=True)
            order = np.argsort(-counts, kind="stable")[:5]
            shown = ", ".join(str([int(c) >> 16, int(c) >> 8 & 255, int(c) & 255]) for c in found[order])
            raise DataError(
                f"{path}: colors {shown}{', ...' if len(found) > 5 else ''} on {counts.sum()} pixels mean no class.\n"
                "  Add them to the dataset's `colors` or `ignored_colors`. Many colors close to the known ones come "
                "from a mask that was resized or saved as JPEG: resize with nearest neighbor and save as PNG"
            )
        found = classes[place]
        found = np.where(found == IGNORED_LABEL, self.none, found)
        return found.astype(np.uint8 if self.few else np.int32)

    def _type(self, labels: np.ndarray) -> type:
        return np.uint8 if labels.dtype == np.uint8 and self.none <= 255 else np.int32

    def _strange(self, path: str, shown: str, count: int, label_map: Mapping[Any, int] | None) -> str:
        what = f"{path}: labels {shown} on {count} pixels belong to no class"
        if label_map is not None:
            known = ", ".join(map(str, list(label_map)[:8])) + (", ..." if len(label_map) > 8 else "")
            return f"{what}: label_map has {known}.\n  Add them to label_map: the class of each, or 255 for none"
        return (
            f"{what}; there are {self.num_classes} classes from 0, and {self.ignore_label} for pixels without one.\n"
            "  Fix it: name all classes of these files (stuff_classes, things among them), say which number means "
            "none (ignore_label), or what the numbers mean (label_map, as {0: 0, 255: 1})"
        )


def label_file(record: Mapping[str, Any]) -> str:
    """The file that a dataset dict's labels are read from."""
    return record.get("sem_seg_file_name") or record["pan_seg_file_name"]


def _packed(colors: Sequence[tuple[Sequence[int], int]]) -> tuple[np.ndarray, np.ndarray]:
    """Colors as sorted 24-bit numbers, and the class of each."""
    codes = np.array([(r << 16) | (g << 8) | b for (r, g, b), _ in colors], np.int32)
    order = np.argsort(codes, kind="stable")
    return codes[order], np.array([meaning for _, meaning in colors], np.int32)[order]


def _sized(labels: np.ndarray, size: tuple[int, int] | None, path: str) -> np.ndarray:
    """The labels as they are, if they have the image's size."""
    if size is not None and labels.shape != size:
        raise DataError(
            f"{path}: the labels have {labels.shape[1]}x{labels.shape[0]} pixels (width x height), their image "
            f"{size[1]}x{size[0]}"
        )
    return labels


def _few(labels: np.ndarray) -> str:
    """The different labels, the first five of them."""
    found = np.unique(labels).tolist()
    return ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
