"""The constructor is the schema: which arguments a component takes, of which types, and which are injected."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from vertebra.config.injection import is_injected, may_be_written
from vertebra.errors import PluginError

__all__ = ["Argument", "Signature", "signature_of"]


@dataclass(frozen=True)
class Argument:
    """One constructor argument as a recipe sees it."""

    name: str
    annotation: Any  # typing.Any where the constructor says nothing
    required: bool  # neither a default, nor given by the framework
    writable: bool  # False: always given by the framework


class Signature:
    """A constructor as components of a kind have it. Made by `signature_of`, once for each class.

    Args:
        cls: the component's class.
        kind: decides which arguments are injected.
    """

    def __init__(self, cls: type[Any], kind: str) -> None:
        self.cls = cls
        self.kind = kind

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """By name, without `self` and `*args`. A constructor inherited from nn.Module or object takes none."""
        owner = next((base for base in self.cls.__mro__ if "__init__" in vars(base)), object)
        if owner is object or owner.__module__ == "torch.nn.modules.module":
            return {}
        left_out = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
        found = inspect.signature(self.cls).parameters
        return {name: parameter for name, parameter in found.items() if parameter.kind not in left_out}

    @property
    def open(self) -> bool:
        """Whether it takes **kwargs, so that any further key passes."""
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self.parameters.values())

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """What a recipe may write, and of which types.

        Raises:
            PluginError: an annotation cannot be resolved, for example because it is imported for type checkers only.
        """
        cls = self.cls
        try:
            described = cls if dataclasses.is_dataclass(cls) and "__init__" in vars(cls) else cls.__init__
            hints = get_type_hints(described, include_extras=True) if self.parameters else {}
        except Exception as err:  # evaluating an annotation can raise anything
            raise PluginError(
                f"the annotations of {cls.__module__}.{cls.__qualname__}.__init__ cannot be resolved: {err}.\n"
                "  Import the types of its arguments at run time, not under TYPE_CHECKING"
            ) from err
        return {
            name: Argument(
                name,
                hints.get(name, Any),
                required=self.needs(name) and not is_injected(self.kind, name),
                writable=may_be_written(self.kind, name) and name not in getattr(cls, "not_in_recipe", ()),
            )
            for name, parameter in self.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }

    @property
    def writable(self) -> list[str]:
        """Names of the arguments that a recipe may write."""
        return [argument.name for argument in self.arguments.values() if argument.writable]

    def place_of(self, name: str) -> int:
        """Where it stands among the arguments; keys of **kwargs come last."""
        return [*self.parameters, name].index(name)

    def needs(self, name: str) -> bool:
        """Whether it cannot be called without this argument."""
        parameter = self.parameters.get(name)
        return parameter is not None and parameter.default is parameter.empty


_known: dict[tuple[type[Any], str], Signature] = {}


def signature_of(cls: type[Any], kind: str) -> Signature:
    """The constructor of a component of this kind, looked at once for each class."""
    return _known.setdefault((cls, kind), Signature(cls, kind))
