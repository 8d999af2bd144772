"""Checks a tree of nodes against annotations, and turns it into sections and ComponentSpecs.

Every mistake is noted with its place and the check goes on, so that one run finds them all.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from vertebra.config.component import USUAL_MODEL, ComponentSpec, Kind, to_plain
from vertebra.config.scalars import INVALID, check_scalar, describe_type, show
from vertebra.config.section import Section
from vertebra.config.sections import Recipe
from vertebra.config.yaml_reader import Node, from_plain
from vertebra.errors import PluginError, RecipeError, VertebraError
from vertebra.plugins.isolation import PluginImportError
from vertebra.registry import REGISTRIES
from vertebra_eval.nearest import nearest

__all__ = ["Mistakes", "check_section", "check_value"]

_LISTS = (list, tuple, set, frozenset, Sequence, Iterable)
_DICTS = (dict, Mapping)


@dataclass
class Mistakes:
    """What is wrong with a recipe so far."""

    found: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    causes: list[VertebraError] = field(default_factory=list)

    def add(self, where: str, text: str, cause: VertebraError | None = None) -> None:
        message = f"{where}: {text}"
        if message not in self.found:
            self.found.append(message)
            if cause is not None:
                self.causes.append(cause)
                if isinstance(cause, PluginImportError) and cause.trace not in ("", *self.traces):
                    self.traces.append(cause.trace)

    def take(self, other: Mistakes) -> None:
        """Adds what another check found."""
        self.found += [text for text in other.found if text not in self.found]
        self.traces += other.traces
        self.causes += other.causes

    def raise_if_any(self, recipe: str) -> None:
        """Raises all of them as one error: a PluginError if plugins alone are to blame, otherwise a RecipeError."""
        if not self.found:
            return
        head = f"{len(self.found)} mistakes in {recipe}:\n" if len(self.found) > 1 else ""
        kind: type[VertebraError] = RecipeError
        if len(self.causes) == len(self.found) and all(isinstance(cause, PluginError) for cause in self.causes):
            kind = PluginError
        raise kind(head + "\n".join([*self.found, *self.traces])) from (self.causes[0] if self.causes else None)


def check_section(cls: type[Section], node: Node, path: str, mistakes: Mistakes, **known: Any) -> Any:
    """A section from its block, or INVALID. `known` are fields that no recipe writes."""
    title = f"section {path}" if path else "a recipe"
    block = Node({}, node.where, node.folder) if node.value is None else node
    if cls.component is not None and isinstance(node.value, str):
        block = Node({"name": node}, node.where, node.folder)
    if not isinstance(block.value, dict):
        mistakes.add(node.where, f"{title} is {show(node)}, expected a block of `key: value` lines")
        return INVALID
    hints = get_type_hints(cls, include_extras=True)
    fields = {item.name: item for item in dataclasses.fields(cls) if item.compare}
    if cls.component is not None:
        block = _component_apart(cls.component, set(fields) - {cls.component}, block)
    for key, child in block.value.items():
        if key not in fields:
            hint = _hint(key, fields, cls, block)
            mistakes.add(child.where, f"{_join(path, key)}: {title} has no such key.\n  {hint}")
    values = dict(known)
    for name, item in fields.items():
        inner = _join(path, name)
        child = block.value.get(name) or _default_of(item, block)
        if child is None:
            mistakes.add(block.where, f"{inner} is missing; {title} needs it")
            continue
        if name == cls.component:
            value = _check_component(component_kind_of(hints[name]) or "", hints[name], child, path, mistakes, cls)
        else:
            value = check_value(hints[name], child, inner, mistakes)
        if value is not INVALID:
            values[name] = value
    problems = list(cls.problems(values))
    for name, text in problems:
        mistakes.add(block.value.get(name, block).where, f"{_join(path, name)} {text}")
    return INVALID if problems or not fields.keys() <= values.keys() else cls(**values)


def _component_apart(component: str, fields: set[str], block: Node) -> Node:
    """The block of a section that is a component too: the keys of other names than its fields are the component's."""
    own = {key: child for key, child in block.value.items() if key in fields}
    rest = {key: child for key, child in block.value.items() if key not in fields}
    return Node({**own, component: Node(rest, block.where, block.folder)}, block.where, block.folder)


def check_value(annotation: Any, node: Node, path: str, mistakes: Mistakes) -> Any:
    """The value that a node means where `annotation` is expected, or INVALID."""
    kind = component_kind_of(annotation)
    if kind is not None:
        return _check_component(kind, annotation, node, path, mistakes)
    if _is_section(annotation):
        return check_section(annotation, node, path, mistakes)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _check_union(annotation, node, path, mistakes)
    if origin in _LISTS and arguments:
        return _check_list(annotation, node, path, mistakes)
    if origin in _DICTS and arguments[:1] == (str,):
        return _check_dict(annotation, node, path, mistakes)
    if origin is Annotated and _holds_component(arguments[0]):
        return check_value(arguments[0], node, path, mistakes)
    return check_scalar(annotation, node, path, mistakes.add)


def component_kind_of(annotation: Any) -> str | None:
    """The kind, if the annotation is a component's class or Annotated[ComponentSpec, Kind(...)]."""
    if get_origin(annotation) is Annotated:
        marks = [mark.kind for mark in get_args(annotation)[1:] if isinstance(mark, Kind)]
        return marks[0] if marks else component_kind_of(get_args(annotation)[0])
    kind = getattr(annotation, "component_kind", None) if isinstance(annotation, type) else None
    return kind if kind in REGISTRIES else None


def _contract_of(annotation: Any) -> str | None:
    """The class that Annotated[ComponentSpec, Kind(kind, contract)] asks for by name, without importing it."""
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((mark.contract for mark in marks if isinstance(mark, Kind)), None)


def _check_component(
    kind: str, annotation: Any, node: Node, path: str, mistakes: Mistakes, section: type[Section] | None = None
) -> Any:
    key = Kind(kind).key
    block = node
    if isinstance(node.value, str) and key == "name":
        block = Node({"name": node}, node.where, node.folder)
    if not isinstance(block.value, dict):
        mistakes.add(node.where, f"{path} is {show(node)}, expected {_block_text(kind)}")
        return INVALID
    wanted = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if kind == "model" and key not in block.value and _may_be_usual(wanted):
        usual = Node(USUAL_MODEL, block.where, block.folder)
        block = Node({key: usual, **block.value}, block.where, block.folder)
    if key not in block.value:
        written = ", ".join(block.value) or "nothing"
        mistakes.add(
            node.where, f"{path}: the {kind}'s `{key}` is missing (written: {written}); expected {_block_text(kind)}"
        )
        return INVALID
    name = block.value[key]
    if not isinstance(name.value, str):
        mistakes.add(name.where, f"{_join(path, key)} is {show(name)}, expected the name of a {kind} as text")
        return INVALID
    try:
        signature = ComponentSpec(kind, name.value).signature
        cls, known_arguments = signature.cls, signature.arguments
    except VertebraError as err:
        mistakes.add(name.where, f"{path}: {getattr(err, 'summary', err)}", err)
        return INVALID
    # A contract stands for all components of its kind: a registered class need not derive from it.
    contract = kind != "part" and "component_kind" in vars(wanted)
    any_class = wanted is ComponentSpec or contract or getattr(wanted, "_is_protocol", False)
    if not any_class and not issubclass(cls, wanted):
        mistakes.add(
            name.where, f"{path}: {name.value} is a {kind}, but not a {wanted.__name__}, which is expected here"
        )
        return INVALID
    named = _contract_of(annotation)
    if named is not None and named not in (base.__name__ for base in cls.__mro__):
        mistakes.add(name.where, f"{path}: {name.value} is a {kind}, but not a {named}, which is expected here")
        return INVALID
    arguments, before = {}, len(mistakes.found)
    for argument, child in block.value.items():
        inner = _join(path, argument)
        if argument == key:
            continue
        known = known_arguments.get(argument)
        if known is None and signature.open:
            arguments[argument] = child.plain()
        elif known is None:
            hint = _hint(argument, signature.writable, section, block)
            mistakes.add(child.where, f"{inner}: {name.value} has no such argument.\n  {hint}")
        elif not known.writable:
            mistakes.add(child.where, f"{inner} is set by the framework; remove it from the recipe")
        else:
            arguments[argument] = check_value(known.annotation, child, inner, mistakes)
    if len(mistakes.found) == before and hasattr(cls, "recipe_problems"):
        for argument, text in cls.recipe_problems(arguments):
            mistakes.add(block.value.get(argument, block).where, f"{_join(path, argument)} {text}")
    for known in known_arguments.values():
        if known.required and known.name not in block.value:
            text = describe_type(known.annotation)
            mistakes.add(block.where, f"{_join(path, known.name)} is missing; {name.value} needs it: {text}")
    if len(mistakes.found) > before:
        return INVALID
    return ComponentSpec(kind, name.value, arguments, block.where, REGISTRIES[kind].module_of(name.value))


def _may_be_usual(wanted: type) -> bool:
    """Whether a model without a name is one that is expected."""
    return wanted is ComponentSpec or issubclass(REGISTRIES["model"].get(USUAL_MODEL), wanted)


def _check_union(annotation: Any, node: Node, path: str, mistakes: Mistakes) -> Any:
    members = get_args(annotation)
    if node.value is None:
        if type(None) in members or Any in members:
            return None
    elif type(node.value) in members:  # the exact type before one that would convert it, as 3 for `float | int`
        return node.value
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and not _is_structured(others[0]):
        return check_scalar(others[0], node, path, mistakes.add, describe_type(annotation))
    fitting = [member for member in others if _fits_shape(member, node)]
    attempts = []
    for member in fitting:
        attempt = Mistakes()
        value = check_value(member, node, path, attempt)
        if value is not INVALID:
            return value
        attempts.append(attempt)
    structured = [attempt for member, attempt in zip(fitting, attempts, strict=True) if _is_structured(member)]
    if len(structured) == 1:  # the only one that can be meant, so its own words are the clearest
        mistakes.take(structured[0])
        return INVALID
    mistakes.add(node.where, f"{path} is {show(node)}, expected {describe_type(annotation)}")
    return INVALID


def _check_list(annotation: Any, node: Node, path: str, mistakes: Mistakes) -> Any:
    origin, members = get_origin(annotation), get_args(annotation)
    if not isinstance(node.value, list):
        mistakes.add(node.where, f"{path} is {show(node)}, expected {describe_type(annotation)}")
        return INVALID
    fixed = origin is tuple and not (len(members) == 2 and members[1] is Ellipsis)
    if fixed and len(node.value) != len(members):
        text = f"{path} has {len(node.value)} values, expected {len(members)}: {describe_type(annotation)}"
        mistakes.add(node.where, text)
        return INVALID
    each = members if fixed else [members[0]] * len(node.value)
    values = [
        check_value(member, child, f"{path}.{index}", mistakes)
        for index, (member, child) in enumerate(zip(each, node.value, strict=True))
    ]
    if any(value is INVALID for value in values):
        return INVALID
    return origin(values) if origin in (tuple, set, frozenset) else values


def _check_dict(annotation: Any, node: Node, path: str, mistakes: Mistakes) -> Any:
    if not isinstance(node.value, dict):
        mistakes.add(node.where, f"{path} is {show(node)}, expected {describe_type(annotation)}")
        return INVALID
    member = get_args(annotation)[1]
    removable = component_kind_of(member) is not None or getattr(member, "component", None) is not None
    values = {
        key: check_value(member, child, _join(path, key), mistakes)
        for key, child in node.value.items()
        if not (removable and child.value is None)  # `heads: {masks: null}` takes away what a base has
    }
    return INVALID if any(value is INVALID for value in values.values()) else values


def _fits_shape(member: Any, node: Node) -> bool:
    """Whether a member of a union is of the node's shape at all: block, list or scalar."""
    origin = get_origin(member)
    if (kind := component_kind_of(member)) is not None:
        return isinstance(node.value, dict) or (isinstance(node.value, str) and kind != "format")
    if origin in _LISTS or member in _LISTS:
        return isinstance(node.value, list)
    if origin in _DICTS or member in _DICTS or dataclasses.is_dataclass(member):
        return isinstance(node.value, dict)
    return not isinstance(node.value, (dict, list)) or member not in (bool, int, float, str)


def _is_structured(member: Any) -> bool:
    return _is_section(member) or component_kind_of(member) is not None or get_origin(member) in (*_LISTS, *_DICTS)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _holds_component(annotation: Any) -> bool:
    return component_kind_of(annotation) is not None or any(map(_holds_component, get_args(annotation)))


def _default_of(item: dataclasses.Field, block: Node) -> Node | None:
    """A field's default, to be checked like anything written; None where it has none."""
    if item.default_factory is not dataclasses.MISSING:
        default = item.default_factory()
        plain = default.to_dict() if isinstance(default, Section) else to_plain(default)
        return from_plain(plain, f"{block.where} (default)", block.folder)
    if item.default is not dataclasses.MISSING:
        return from_plain(to_plain(item.default), f"{block.where} (default)", block.folder)
    return None


def _block_text(kind: str) -> str:
    key = Kind(kind).key
    bare = "" if key == "format" else "a name, or "
    return f"{bare}a block {{{key}: ..., ...}} (vertebra components {kind})"


def _nearest_of(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = nearest(name, names)
    if not names:
        return "It takes none"
    return f"Nearest: {', '.join(near)}" if near else f"Known: {', '.join(names)}"


def _hint(key: str, known: Iterable[str], section: type[Section] | None, block: Node) -> str:
    """Where in a recipe an unknown key of a block belongs, or which known ones are near it.

    Args:
        section: whose block it is, if it is a section's.
    """
    places = _elsewhere(key, section, block) if section is not None else []
    if section is not None and section.component is not None:
        known = [*known, *(item.name for item in dataclasses.fields(section) if item.name != section.component)]
    return f"Nearest: {', '.join(places)}" if places else _nearest_of(key, known)


def _elsewhere(key: str, cls: type[Section], block: Node) -> list[str]:
    """Where in a recipe a key stands that was written in a wrong section: `train.epochs` for `epochs`."""
    sections = {name: hint for name, hint in get_type_hints(Recipe).items() if isinstance(hint, type)}
    found = [
        f"{name}.{key}"
        for name, hint in sections.items()
        if issubclass(hint, Section) and hint is not cls and key in {item.name for item in dataclasses.fields(hint)}
    ]
    if cls is not Recipe and key in {item.name for item in dataclasses.fields(Recipe)} - {"source", "name"}:
        found.append(key)
    return found or ([path for path in _written(key, block, "") if path != key] if cls is Recipe else [])


def _written(key: str, node: Node, path: str) -> Iterator[str]:
    """The paths of all keys of this name that blocks below a node have."""
    for name, child in node.value.items() if isinstance(node.value, dict) else ():
        if name == key:
            yield _join(path, name)
        yield from _written(key, child, _join(path, name))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
