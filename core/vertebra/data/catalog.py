"""Names of datasets and what is known about them, with the behavior of Detectron2's two catalogs.

`DatasetCatalog` maps a name to a function that returns the dataset's standard dicts; `MetadataCatalog` maps the
same name to facts that hold for the whole dataset (class names, id mappings, flip maps). A registration function
written for Detectron2 works with both.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from vertebra.errors import DataError

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class Metadata:
    """Facts about one dataset, as attributes. Each is set once: setting it again to something else is an error.

    Usual attributes: `thing_classes`, `thing_dataset_id_to_contiguous_id`, `thing_contiguous_id_to_dataset_id`,
    `stuff_classes`, `ignore_label`, `keypoint_names`, `keypoint_flip_map`, `json_file`, `image_root`, `evaluator_type`.
    """

    def __init__(self, name: str = "N/A") -> None:
        self.__dict__["name"] = name

    def __getattr__(self, key: str) -> Any:  # called only where the attribute is missing
        if key.startswith("__"):  # pickle and copy ask for these; never data
            raise AttributeError(key)
        known = sorted(self.__dict__)
        near = difflib.get_close_matches(key, known, n=3)
        hint = f"Nearest: {', '.join(near)}." if near else f"There are: {', '.join(known)}."
        raise AttributeError(f"the metadata of dataset {self.__dict__.get('name')!r} has no {key!r}. {hint}")

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.__dict__ and self.__dict__[key] != value:
            raise DataError(
                f"metadata of dataset {self.name!r}: {key} is already {_short(self.__dict__[key])} and cannot become "
                f"{_short(value)}.\n  Register the other facts under another name."
            )
        self.__dict__[key] = value

    def __repr__(self) -> str:
        return f"Metadata({', '.join(f'{key}={_short(value)}' for key, value in self.__dict__.items())})"

    def set(self, **facts: Any) -> Metadata:
        """Set several attributes; returns itself."""
        for key, value in facts.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or `default` where it was never set."""
        return self.__dict__.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        """All facts as a new dict (a shallow copy)."""
        return dict(self.__dict__)


class _DatasetCatalog:
    """Name -> function without arguments that returns list[dict]. Nothing is read before `get`."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[[], list[dict]]] = {}

    def register(self, name: str, function: Callable[[], list[dict]]) -> None:
        """Remember `function` under `name`; a name can be taken only once."""
        if not callable(function):
            raise DataError(f"DatasetCatalog.register({name!r}, ...) needs a function that returns the dataset dicts")
        if name in self._functions:
            raise DataError(f"a dataset {name!r} is registered already; choose another name or remove the first")
        self._functions[name] = function

    def get(self, name: str) -> list[dict]:
        """Call the function registered as `name` and return its dicts."""
        if name not in self._functions:
            near = difflib.get_close_matches(name, self._functions, n=3)
            hint = f"Nearest: {', '.join(near)}" if near else f"Registered: {', '.join(self.list()) or 'none'}"
            raise DataError(
                f"no dataset is registered as {name!r}. {hint}\n  Register it with DatasetCatalog.register in a module "
                "that the recipe names under `plugins`, or write the dataset inline: {format: coco, ...}."
            )
        return self._functions[name]()

    def list(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._functions)

    def remove(self, name: str) -> None:
        """Forget `name`."""
        if name not in self._functions:
            raise DataError(f"no dataset is registered as {name!r}")
        del self._functions[name]

    def clear(self) -> None:
        """Forget all names."""
        self._functions.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._functions)


class _MetadataCatalog:
    """Name -> Metadata, made empty on first use."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        """The one Metadata object of this name in this process."""
        if not name:
            raise DataError("MetadataCatalog.get needs a non-empty name")
        if name not in self._entries:
            self._entries[name] = Metadata(name)
        return self._entries[name]

    def list(self) -> list[str]:
        """All names requested so far, sorted."""
        return sorted(self._entries)

    def remove(self, name: str) -> None:
        """Forget everything known about `name`."""
        if name not in self._entries:
            raise DataError(f"dataset {name!r} has no metadata")
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
