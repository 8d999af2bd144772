"""Names that are to go: each still works, and warns, for one minor release before it goes.

RENAMED = {"models.OldName": Renamed("models.NewName", until="0.3")}  # in vertebra 0.2; the line itself goes with 0.3
MOVED = {"data.old_module": Renamed("data.new_module", until="0.3")}
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["MOVED", "RENAMED", "MovedModules", "Renamed", "VertebraDeprecationWarning", "former_names", "new_name_of"]


class VertebraDeprecationWarning(FutureWarning):
    """A public name is used that a coming release does not have. Shown by default, as it concerns users."""


class Renamed(NamedTuple):
    """What took a name's place, and the minor release in which the old one is gone."""

    new: str
    until: str


RENAMED: dict[str, Renamed] = {}
"""Former public names: of `vertebra` itself bare, of another package with its path, such as `models.OldName`."""
MOVED = {  # former modules, without `vertebra.`
    old: Renamed(new, until="0.3")
    for old, new in {
        "class_source": "plugins.class_source",
        "cli.print_evaluation": "evaluation.printed",
        "cli.tables": "evaluation.printed",
        "components": "config.describe",
        "data.coco_panoptic": "data.coco.panoptic_format",
        "data.coco_records": "data.coco.dataset_dicts",
        "data.file_pairs": "data.semantic.file_pairs",
        "data.image": "data.images.read",
        "data.image_content": "data.images.content",
        "data.image_oddities": "data.images.oddities",
        "data.image_survey": "data.images.survey",
        "data.label_facts": "data.semantic.label_facts",
        "data.labels": "data.semantic.label_reader",
        "data.panoptic": "data.coco.panoptic_file",
        "data.semantic_classes": "data.semantic.classes",
        "data.semantic_folder": "data.semantic.folder_format",
        "data.shapes_files": "data.shapes.files",
        "data.shapes_format": "data.shapes.format",
        "data.shapes_options": "data.shapes.options",
        "data.shapes_outlines": "data.shapes.outlines",
        "data.shapes_records": "data.shapes.coco_truth",
        "data.shapes_scene": "data.shapes.scene",
        "data.shapes_texture": "data.shapes.texture",
        "engine.contract": "engine.hook",
        "evaluation.coco": "evaluation.coco_evaluator",
        "evaluation.contract": "evaluation.evaluator",
        "evaluation.panoptic.evaluator": "evaluation.panoptic.panoptic_evaluator",
        "evaluation.records": "evaluation.coco_json",
        "evaluation.semantic.evaluator": "evaluation.semantic.sem_seg_evaluator",
        "injection": "config.injection",
        "isolation": "plugins.isolation",
        "local_plugins": "plugins.local_files",
        "locate": "plugins.locate",
        "models.inference.contract": "models.inference.mode",
        "models.losses.labels": "models.losses.pixel_labels",
        "models.losses.overlap": "models.losses.region_overlap",
        "regular_files": "files",
        "predictor.records": "predictor.prediction_records",
        "structures.labels": "structures.ignore_label",
        "structures.overlap": "structures.pairwise",
    }.items()
}


def new_name_of(name: str, renamed: dict[str, Renamed] = RENAMED, stacklevel: int = 3) -> str | None:
    """The name that took the place of `name`, after a warning at the caller's line; None for one that never was."""
    if name not in renamed:
        return None
    new, until = renamed[name]
    warnings.warn(
        f"vertebra.{name} is now vertebra.{new}; the old name goes with vertebra {until}",
        VertebraDeprecationWarning,
        stacklevel=stacklevel,
    )
    return new


def former_names(package: str, current: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """`__getattr__` of a public package: former names in `RENAMED` warn and are what took their place.

    Args:
        current: `__getattr__` for the names of today, where they are imported on first use.
    """

    def get(name: str) -> Any:
        new = new_name_of(f"{package}.{name}".removeprefix("vertebra."))
        if new is not None:
            module, _, successor = f"vertebra.{new}".rpartition(".")
            return getattr(importlib.import_module(module), successor)
        if current is not None:
            return current(name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


class MovedModules(Loader):
    """Finds the modules of `MOVED`; last on `sys.meta_path`, so that it costs other imports nothing."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        return ModuleSpec(name, cls()) if package == "vertebra" and rest in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Warns at the line of the import, and puts the new module in the old one's place."""
        name = module.__name__.partition(".")[2]
        new = new_name_of(name, MOVED)
        sys.modules[module.__name__] = importlib.import_module(f"vertebra.{new}")


if not any(getattr(finder, "__name__", "") == MovedModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(MovedModules)
