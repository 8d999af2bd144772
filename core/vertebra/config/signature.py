"""The constructor is the schema: which arguments a component takes, of which types, and which are injected."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, get_type_hints

from vertebra.errors import PluginError
from vertebra.injection import is_injected, may_be_written

__all__ = ["Argument", "Signature", "parameters_of", "signature_of"]


@dataclass(frozen=True)
class Argument:
    """One constructor argument as a recipe sees it."""

    name: str
    annotation: Any  # typing.Any where the constructor says nothing
    required: bool  # neither a default, nor given by the framework
    writable: bool  # False: always given by the framework


@dataclass(frozen=True)
class Signature:
    """A constructor's arguments by name; `open` where it takes **kwargs, so that any further key passes."""

    arguments: dict[str, Argument]
    open: bool

    @property
    def writable(self) -> list[str]:
        return [argument.name for argument in self.arguments.values() if argument.writable]


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters without `self` and `*args`. One inherited from nn.Module or object takes none."""
    owner = next((base for base in cls.__mro__ if "__init__" in vars(base)), object)
    if owner is object or owner.__module__ == "torch.nn.modules.module":
        return {}
    found = inspect.signature(cls).parameters
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
    }


def signature_of(cls: type[Any], kind: str) -> Signature:
    """What a recipe may write for a component of this kind.

    Raises:
        PluginError: an annotation cannot be resolved, for example because it is imported for type checkers only.
    """
    parameters = parameters_of(cls)
    try:
        described = cls if dataclasses.is_dataclass(cls) and "__init__" in vars(cls) else cls.__init__
        hints = get_type_hints(described, include_extras=True) if parameters else {}
    except Exception as err:  # evaluating an annotation can raise anything
        raise PluginError(
            f"the annotations of {cls.__module__}.{cls.__qualname__}.__init__ cannot be resolved: {err}.\n"
            "  Import the types of its arguments at run time, not under TYPE_CHECKING"
        ) from err
    arguments = {}
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        injected = is_injected(kind, name)
        arguments[name] = Argument(
            name,
            hints.get(name, Any),
            required=parameter.default is inspect.Parameter.empty and not injected,
            writable=not injected or may_be_written(kind, name),
        )
    return Signature(arguments, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()))
