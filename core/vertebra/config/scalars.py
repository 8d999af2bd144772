"""Single values against their annotations: pydantic in strict JSON mode decides, the words are ours."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vertebra.config.yaml_reader import Node
from vertebra_eval.nearest import nearest

__all__ = ["INVALID", "check_scalar", "describe_type", "show"]


class _Invalid:
    """Stands for a value that was refused; why is noted elsewhere."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID = _Invalid()


def check_scalar(
    annotation: Any, node: Node, path: str, report: Callable[[str, str], None], expected: str | None = None
) -> Any:
    """The node's value as `annotation` wants it (an int for a float, a list for a tuple, text for a Path).

    Returns INVALID after calling report(where, text) where it does not fit; `expected` replaces the type's words.
    """
    expected = expected or describe_type(annotation)
    from pydantic import ValidationError

    if annotation is Any:
        return node.plain()
    adapter = _adapter(annotation)
    if adapter is None:
        report(node.where, f"{path} cannot be written in a recipe: it must be {expected}")
        return INVALID
    try:
        return adapter.validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as err:
        errors = err.errors(include_url=False)
        place, inner = _follow(node, path, errors[0]["loc"])
        if place is not node or get_origin(annotation) is Annotated:
            report(place.where, f"{inner} is {show(place)}: {_lower_first(errors[0]['msg'])}")
        else:
            report(place.where, f"{inner} is {show(place)}, expected {expected}{_hint(annotation, place)}")
        return INVALID


def describe_type(annotation: Any) -> str:
    """A type as a recipe's author thinks of it: `int`, `'rgb' or 'bgr'`, `list of float`, `a loss (Loss)`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is Any:
        return "any value"
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return " or ".join(show(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(member) for member in arguments)
    if origin is Annotated:
        kinds = [mark.kind for mark in arguments[1:] if hasattr(mark, "kind")]
        return f"a {kinds[0]}" if kinds else describe_type(arguments[0])
    if origin is tuple and arguments[1:] != (Ellipsis,):
        return f"a list [{', '.join(describe_type(member) for member in arguments)}]"
    if origin in (dict, Mapping):
        return f"a block of {describe_type(arguments[1])}"
    if origin is not None and arguments and isinstance(origin, type):
        return f"a list of {describe_type(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(show(member.value) for member in annotation)
    if dataclasses.is_dataclass(annotation) and hasattr(annotation, "problems"):
        return f"a block of {', '.join(item.name for item in dataclasses.fields(annotation))}"
    kind = getattr(annotation, "component_kind", None)
    if isinstance(kind, str):
        return f"a {kind}" if annotation.__name__.lower() == kind else f"a {kind} ({annotation.__name__})"
    return getattr(annotation, "__name__", str(annotation))


def show(value: Any) -> str:
    """A value as YAML would write it, cut where it is long."""
    plain = value.plain() if isinstance(value, Node) else value
    if plain is None:
        return "null"
    text = json.dumps(plain, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


_WORDS: dict[Any, str] = {
    int: "int",
    float: "float",
    str: "text",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "a block",
}


@functools.lru_cache(maxsize=512)
def _cached_adapter(annotation: Any) -> Any:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TypeAdapter(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation):  # a class that JSON cannot hold
        return None


def _adapter(annotation: Any) -> Any:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # unhashable, as Annotated[int, [...]]
        return _cached_adapter.__wrapped__(annotation)


def _follow(node: Node, path: str, location: tuple) -> tuple[Node, str]:
    """The node that pydantic's location means; parts of it that are not keys (names of union members) are skipped."""
    for part in location:
        in_list = isinstance(node.value, list) and isinstance(part, int) and part < len(node.value)
        if in_list or (isinstance(node.value, dict) and part in node.value):
            node, path = node.value[part], f"{path}.{part}"
    return node, path


def _hint(annotation: Any, node: Node) -> str:
    value = node.value
    if get_origin(annotation) is Literal and isinstance(value, str):
        near = nearest(value, [option for option in get_args(annotation) if isinstance(option, str)])
        return f".\n  Nearest: {', '.join(near)}" if near else ""
    if annotation in (int, float) and isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_]*(\.[\d_]*)?", value):
        return f".\n  Write {value.replace('_', '')} (no quotes, no _)"
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f".\n  Write {int(value)}"
    if annotation is str and isinstance(value, (bool, int, float)):
        return ".\n  Put it in quotes"
    if annotation is bool and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return f".\n  Write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    return ""


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
