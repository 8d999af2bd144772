"""The format `semantic_folder`: a folder of images and a folder of masks of the same names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from vertebra.data.formats import Dataset, Format, resolve_path
from vertebra.data.semantic.classes import SemanticClasses, read_classes
from vertebra.data.semantic.file_pairs import pair_files, read_names, records_of
from vertebra.errors import DataError
from vertebra.structures import IGNORED_LABEL

__all__ = ["SemanticFolderFormat"]


class SemanticFolderFormat(Format):
    """Semantic labels: `images/a.jpg` belongs to `masks/a.png`, subfolders too. The files are only read.

    A mask holds a number for each pixel (gray or palette PNG of 8 or 16 bits), which is the class unless `label_map`
    says otherwise, or a color, if `colors` are given.

    Args:
        images: the folder of images.
        masks: the folder of label files.
        classes: the names, numbered from 0; or a file of them: text with one in each line, or JSON as `classes.json`
            with `index`, `name` and perhaps `colour`, `mask_value`, `ignore`.
        ignore_label: number of pixels without a class; by default what the file of classes says, else 255.
        label_map: {number in the masks: class, or 255 for none}, as {0: 0, 255: 1}; then all other numbers are errors.
        colors: [red, green, blue] of each class, for masks that hold colors; true: those in the file of classes.
        ignored_colors: colors of pixels without a class.
        name: of the dataset in messages; by default the end of the path of the images.
        names: a list of images in a text file, one name without suffix in each line; by default all.
        image_ending: what stands between the common name and the suffix of images, as `_leftImg8bit`.
        mask_ending: the same of masks, as `_L`.
        unpaired: `error` if an image has no mask or a mask no image, or `leave_out` those.
    """

    def __init__(
        self,
        images: str,
        masks: str,
        classes: list[str] | str,
        *,
        ignore_label: int | None = None,
        label_map: dict[str, int] | None = None,
        colors: list[list[int]] | bool = False,
        ignored_colors: list[list[int]] | None = None,
        name: str | None = None,
        names: str | None = None,
        image_ending: str = "",
        mask_ending: str = "",
        unpaired: Literal["error", "leave_out"] = "error",
    ) -> None:
        if unpaired not in ("error", "leave_out"):
            raise DataError(f"semantic_folder: unpaired is {unpaired!r}, expected error or leave_out")
        self.images = images
        self.masks = masks
        self.classes = classes
        self.ignore_label = ignore_label
        self.label_map = None if label_map is None else _whole_numbers(label_map)
        self.colors = colors
        self.ignored_colors = ignored_colors or []
        self.name = name
        self.names = names
        self.image_ending = image_ending
        self.mask_ending = mask_ending
        self.unpaired = unpaired

    def load(self, root: str | None = None) -> Dataset:
        """Find the pairs. Of the images the headers are read, masks are not opened.

        Raises:
            DataError: folders or classes that cannot be, files without a partner; all of them in one message.
        """
        classes = self._classes(root)
        images = resolve_path(self.images, root)
        pairs = pair_files(
            images,
            resolve_path(self.masks, root),
            image_ending=self.image_ending,
            mask_ending=self.mask_ending,
            names=None if self.names is None else read_names(resolve_path(self.names, root)),
            strict=self.unpaired == "error",
        )
        metadata = classes.metadata(self.name or "/".join(images.parts[-3:]), by_color=self.colors is not False)
        return Dataset(records_of(pairs), metadata.set(image_root=str(images)))

    def _classes(self, root: str | None) -> SemanticClasses:
        """The classes as they are written in the recipe, over those of a file."""
        if isinstance(self.classes, str):
            classes = read_classes(resolve_path(self.classes, root))
        else:
            classes = SemanticClasses(tuple(self.classes))
        changes: dict = {}
        if self.ignore_label is not None:
            changes["ignore_label"] = self.ignore_label
        if self.label_map is not None:
            changes["label_map"] = self.label_map
        if isinstance(self.colors, list):
            changes["colors"] = tuple(map(tuple, self.colors))
        if self.ignored_colors:
            changes["ignored_colors"] = tuple(map(tuple, self.ignored_colors))
        classes = dataclasses.replace(classes, **changes)
        _check(classes, self.colors is not False)
        return classes


def _whole_numbers(label_map: Mapping[str, int]) -> dict[int, int]:
    """Keys as numbers: YAML and JSON have them as text."""
    try:
        return {int(number): meaning for number, meaning in label_map.items()}
    except ValueError as err:
        raise DataError(
            f"semantic_folder: label_map is {dict(label_map)}; expected {{number in the masks: class}}, as "
            "{0: 0, 255: 1}"
        ) from err


def _check(classes: SemanticClasses, by_color: bool) -> None:
    count = len(classes.names)
    if not 1 <= count <= IGNORED_LABEL:
        raise DataError(f"semantic_folder: {count} classes; expected 1 to {IGNORED_LABEL}")
    for number, meaning in (classes.label_map or {}).items():
        if not 0 <= number < 65536 or not (0 <= meaning < count or meaning == IGNORED_LABEL):
            raise DataError(
                f"semantic_folder: label_map has {number}: {meaning}; expected a number in the masks, 0 to 65535, and "
                f"a class, 0 to {count - 1}, or {IGNORED_LABEL} for none"
            )
    if not by_color:
        return
    colors = [*(classes.colors or ()), *classes.ignored_colors]
    if classes.colors is None or len(classes.colors) != count:
        raise DataError(
            f"semantic_folder: {len(classes.colors or ())} colors for {count} classes; expected one for each, "
            "[red, green, blue]"
        )
    for color in colors:
        if len(color) != 3 or not all(0 <= value <= 255 for value in color) or colors.count(color) > 1:
            raise DataError(f"semantic_folder: the color {list(color)} is not [red, green, blue], or occurs twice")
