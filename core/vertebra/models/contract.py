"""Contract: the base of what plugins derive from; it guards the names that mean something."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any, get_args

from torch import nn

from vertebra.config.extra_fields import Geometry
from vertebra.config.injection import Labels
from vertebra.errors import PluginError

__all__ = ["Contract", "check_attributes"]


class Contract(nn.Module):
    """A module whose methods and properties cannot be hidden by attributes of the same name.

    `self.losses = nn.ModuleDict(...)` would be found neither as the modules, since Python finds the method first, nor
    by a reader.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises PluginError where the name is a method or property of a contract, not one of the class itself."""
        found = inspect.getattr_static(type(self), name, ...)
        if found is not ... and (isinstance(value, nn.Module) or isinstance(found, (FunctionType, property))):
            owner = next(base for base in type(self).__mro__ if name in vars(base))
            of_contract = issubclass(owner, Contract) and owner.__module__.startswith("vertebra.models.")
            settable = isinstance(found, property) and found.fset is not None
            other_method = isinstance(found, FunctionType) and callable(value) and not isinstance(value, nn.Module)
            if of_contract and owner is not type(self) and not settable and not other_method:
                raise PluginError(
                    f"{type(self).__name__} sets self.{name}, which means something else in {owner.__name__}; choose "
                    "another name"
                )
        super().__setattr__(name, value)


def check_attributes(cls: type, where: str) -> None:
    """What a class says of itself is of the type that it must be.

    Raises:
        PluginError: `labels`, `task_outputs` or `needs_fields` is something else; starts with `where`.
    """
    labels, outputs, fields = (getattr(cls, name, None) for name in ("labels", "task_outputs", "needs_fields"))
    if labels is not None and labels not in get_args(Labels):
        raise PluginError(f"{where}: labels is {labels!r}, expected {' or '.join(map(repr, get_args(Labels)))}")
    if isinstance(outputs, str):
        raise PluginError(f"{where}: task_outputs is {outputs!r}, expected a tuple of names: ({outputs!r},)")
    if fields is not None and not isinstance(fields, (Mapping, property)):
        raise PluginError(
            f"{where}: needs_fields is {fields!r}, expected {{name: geometry}}, such as {{'depth': 'image'}}"
        )
    for name, geometry in fields.items() if isinstance(fields, Mapping) else ():
        if geometry not in get_args(Geometry):
            known = ", ".join(get_args(Geometry))
            raise PluginError(
                f"{where}: needs_fields has {name!r} with the geometry {geometry!r}, expected one of {known}"
            )
