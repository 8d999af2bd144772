"""`Instances`: everything known of the objects of one image, as equally long fields. Detectron2's meaning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Instances"]


class Instances:
    """The objects of one image. Fields are attributes, and all of them have one entry per object.

        instances = Instances((480, 640), pred_boxes=Boxes(...), scores=torch.tensor([0.9, 0.2]))
        instances.pred_classes = torch.tensor([3, 1])
        confident = instances[instances.scores > 0.5]

    A field may be a tensor, an array, a list, `Boxes`, `BitMasks`, ...: what has a length and can be indexed.

    Args:
        image_size: (height, width) of the image that the fields refer to.
        fields: first fields, by name.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(self._no_field(name))
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Adds or replaces a field.

        Raises:
            ValueError: the value's length is not that of the other fields.
        """
        if name == "image_size":
            raise ValueError("image_size of Instances is fixed at construction; make new Instances for another size")
        try:
            length = len(value)
        except TypeError as err:
            raise ValueError(f"Instances.{name}: a field needs one entry per object, got {value!r}") from err
        if self._fields and length != len(self):
            raise ValueError(
                f"Instances.{name} has {length} entries, but the other fields have {len(self)}:"
                f" {', '.join(self._fields)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        """The field, or KeyError with the names there are."""
        if name not in self._fields:
            raise KeyError(self._no_field(name))
        return self._fields[name]

    def remove(self, name: str) -> None:
        if name not in self._fields:
            raise KeyError(self._no_field(name))
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The dict of fields itself, not a copy: what is changed in it is changed here."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """All fields that know `to` on another device; takes what `Tensor.to` takes."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: int | slice | Tensor) -> Instances:
        """The chosen objects with all their fields; `instances[i]` still has the length 1."""
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"Instances index {item} is out of range: there are {len(self)}")
            item = slice(int(item), None, len(self))  # just that one
        chosen = Instances(self._image_size)
        for name, value in self._fields.items():
            chosen.set(name, _select(value, item))
        return chosen

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length; set a field first")

    __iter__ = None  # iter() would fall back on __getitem__ and quietly make a thousand small objects

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """The objects of several `Instances` of one image, which have the same fields.

        Raises:
            ValueError: nothing to join, other image sizes or fields, or a field whose type cannot be joined.
        """
        if len(instance_lists) == 0:
            raise ValueError("Instances.cat got an empty list; it needs at least one Instances")
        for instances in instance_lists:
            if not isinstance(instances, Instances):
                raise ValueError(f"Instances.cat takes a list of Instances, found {type(instances).__name__} in it")
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        for other in instance_lists[1:]:
            if tuple(other.image_size) != tuple(first.image_size):
                raise ValueError(f"Instances.cat: image sizes differ, {first.image_size} and {other.image_size}")
            if other._fields.keys() != first._fields.keys():
                differing = sorted(other._fields.keys() ^ first._fields.keys())
                raise ValueError(f"Instances.cat: not all have the fields {', '.join(differing)}")
        joined = Instances(first.image_size)
        for name in first._fields:
            joined.set(name, _join(name, [instances._fields[name] for instances in instance_lists]))
        return joined

    def _no_field(self, name: str) -> str:
        known = ", ".join(self.__dict__.get("_fields", ())) or "none"
        return f"Instances have no field {name!r}; fields: {known}"

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        count = len(self) if self._fields else 0
        return f"Instances(num_instances={count}, image_height={height}, image_width={width}, fields=[{fields}])"


def _select(value: Any, item: slice | Tensor | Sequence[int]) -> Any:
    """`value[item]`, also for plain lists, which know only slices."""
    if isinstance(value, (list, tuple)) and not isinstance(item, slice):
        index = torch.arange(len(value))[torch.as_tensor(item).cpu()]
        return type(value)(value[i] for i in index.tolist())
    return value[item]


def _join(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, np.ndarray):
        return np.concatenate(values)
    if isinstance(first, (list, tuple)):
        return type(first)(itertools.chain(*values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise ValueError(f"Instances.cat: field {name!r} is of type {type(first).__name__}, which has no `cat`")
