"""What components there are and what their constructors take; those of plugins from source, without an import.

describe("head", "RetinaNetHead").arguments
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vertebra.config.injection import is_injected
from vertebra.config.signature import signature_of
from vertebra.plugins import KINDS, Offer, core, offers, switched_off
from vertebra.plugins.class_source import Parameter, read_class
from vertebra.registry import REGISTRIES

__all__ = ["ArgumentDescription", "ComponentDescription", "describe", "list_components"]


@dataclass(frozen=True)
class ArgumentDescription:
    """One constructor argument, as its source writes it."""

    name: str  # "**options" for further keys of any name
    annotation: str
    default: str | None
    required: bool  # neither a default nor injected
    injected: bool  # given by the framework


@dataclass(frozen=True)
class ComponentDescription:
    """A component as its source and its plugin's metadata describe it."""

    kind: str
    name: str  # as a recipe writes it; `distribution:Name` where the bare name means another or is ambiguous
    distribution: str  # "(this process)" for one registered by the decorator
    version: str
    location: str  # file:line, or module:Class where the file was not found
    summary: str = ""  # first line of the docstring
    docstring: str = ""
    arguments: tuple[ArgumentDescription, ...] = field(default=())
    problem: str | None = None  # why it cannot be used or not be described


def describe(kind: str, name: str) -> ComponentDescription:
    """The component that `name` means in a recipe.

    Raises:
        RecipeError: nothing of this kind has that name.
        PluginError: several distributions offer it.
    """
    found = REGISTRIES[kind].find(name)
    return _describe_offer(found, name) if isinstance(found, Offer) else _describe_class(kind, name, found)


def list_components(kind: str | None = None) -> list[ComponentDescription]:
    """Every component, or those of one kind: by kind, then by name. A broken plugin's are listed with their problem."""
    found = []
    for each in KINDS if kind is None else (kind,):
        registered = REGISTRIES[each].registered()
        here = [_describe_class(each, name, cls) for name, cls in registered.items()]
        on = [offer for offer in offers(each) if not switched_off(offer.distribution)]
        names = [offer.name for offer in on]
        for offer in on:
            alone = names.count(offer.name) == 1 or offer.plugin is core()
            here.append(
                _describe_offer(offer, offer.name if alone and offer.name not in registered else offer.qualified)
            )
        found += sorted(here, key=lambda component: (component.name.lower(), component.name))
    return found


def _describe_offer(offer: Offer, name: str) -> ComponentDescription:
    problem = offer.plugin.problem
    facts: dict[str, Any] = {"location": offer.value}
    try:
        source = read_class(offer.value)
        if source is None:
            problem = problem or f"no source of {offer.value} was found; import it: vertebra plugins check"
        else:
            facts = _facts(offer.kind, f"{source.file}:{source.line}", source.docstring, source.parameters)
    except (SyntaxError, ValueError, OSError, RecursionError) as err:
        problem = problem or f"{offer.value} cannot be read: {err}"
    return ComponentDescription(offer.kind, name, offer.distribution, offer.plugin.version, problem=problem, **facts)


def _describe_class(kind: str, name: str, cls: type) -> ComponentDescription:
    """A class of this process, from itself."""
    try:
        location = f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (TypeError, OSError):  # a notebook's
        location = f"{cls.__module__}:{cls.__qualname__}"
    parameters = [
        Parameter(
            ("**" if parameter.kind is parameter.VAR_KEYWORD else "") + argument,
            _annotation(parameter),
            None if parameter.default is parameter.empty else repr(parameter.default),
        )
        for argument, parameter in signature_of(cls, kind).parameters.items()
    ]
    docstring = inspect.cleandoc(cls.__doc__ or getattr(vars(cls).get("__init__"), "__doc__", None) or "")
    return ComponentDescription(kind, name, "(this process)", "", **_facts(kind, location, docstring, parameters))


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    text = parameter.annotation  # from __future__ import annotations
    return text if isinstance(text, str) else inspect.formatannotation(text)


def _facts(kind: str, location: str, docstring: str, parameters: Iterable[Parameter]) -> dict[str, Any]:
    arguments = tuple(_argument(parameter, kind) for parameter in parameters)
    summary = docstring.partition("\n")[0]
    return {"location": location, "summary": summary, "docstring": docstring, "arguments": arguments}


def _argument(parameter: Parameter, kind: str) -> ArgumentDescription:
    injected = is_injected(kind, parameter.name)
    further = parameter.name.startswith("**")
    required = parameter.default is None and not injected and not further
    return ArgumentDescription(parameter.name, parameter.annotation, parameter.default, required, injected)
