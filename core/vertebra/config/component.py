"""ComponentSpec: a component with its arguments, checked and not built yet."""

from __future__ import annotations

import contextlib
import re
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vertebra.config.injection import INJECTED, WHERE_KNOWN, facts_of_head, facts_of_model, is_injected
from vertebra.config.signature import Signature, signature_of
from vertebra.errors import PluginError, RecipeError, VertebraError
from vertebra.registry import REGISTRIES

__all__ = ["USUAL_MODEL", "ComponentSpec", "Kind", "described", "to_plain", "where_written"]

USUAL_MODEL = "Model"  # what a model's block means that has no `name`
_GIVE_SHAPES = ("backbone", "neck")
_written: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Kind:
    """Says in an annotation which registry a ComponentSpec comes from: Annotated[ComponentSpec, Kind("head")]."""

    kind: str
    contract: str | None = None  # name of a class that the component's class must derive from

    @property
    def key(self) -> str:
        """The key of a block that names the component: datasets are written `{format: coco, ...}`."""
        return "format" if self.kind == "format" else "name"


@dataclass(frozen=True)
class ComponentSpec:
    """What a recipe's block says of one component.

    Args:
        kind: which registry its name is looked up in.
        name: as the recipe writes it, perhaps qualified (`distribution:Name`).
        arguments: the written ones, checked against the constructor; nested components are ComponentSpecs, alone or
            inside lists and dicts.
        where: `file:line`; two specs that differ only here are equal.
        module: what registered the class that the name meant when the recipe was read, as another file may have one of
            the same name. Empty: an installed component.
    """

    kind: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    where: str = field(default="(made in Python)", compare=False)
    module: str = field(default="", compare=False)

    @property
    def signature(self) -> Signature:
        """The class that the name means now, with its constructor.

        Raises: as `Registry.get`.
        """
        return signature_of(REGISTRIES[self.kind].get(self.name, self.module), self.kind)

    def build(self, **injected: Any) -> Any:
        """Constructs the component, and its nested ones first.

        Args:
            injected: what the framework knows (`input_shape`, `num_classes`, ...). Each goes to every constructor,
                nested ones too, that has a parameter of this name and whose kind is promised it (`INJECTED`); what the
                recipe writes goes before it, and holds for what is nested in the component as well. From
                `label_counts`, where it is given, each head takes the `num_classes` that it asks for. Inside a model,
                what a backbone or neck gives is the `input_shape` of the parts after it.
        Raises:
            RecipeError: the constructor raised; names file and line and the place in the code. Or it takes a promised
                argument that is not known here.
            PluginError: the component's plugin cannot be used.
        """
        signature = self.signature
        cls = signature.cls
        injected |= {key: value for key, value in self.arguments.items() if is_injected(self.kind, key)}
        if self.kind == "head":
            injected = facts_of_head(cls, injected, self.arguments.get("num_classes"))
        elif self.kind == "model":
            injected = facts_of_model(cls, injected, self.arguments.get("num_classes"))
        arguments = {}
        for key, value in sorted(self.arguments.items(), key=lambda item: signature.place_of(item[0])):
            arguments[key] = _with_specs(value, lambda nested: nested.build(**injected))
            if self.kind == "model" and isinstance(value, ComponentSpec) and value.kind in _GIVE_SHAPES:
                injected["input_shape"] = _shapes_of(arguments[key], value)
        for key in INJECTED.get(self.kind, ()):
            if key in arguments or key not in signature.parameters:
                continue
            if key in injected:
                arguments[key] = injected[key]
            elif signature.needs(key):
                raise RecipeError(
                    f"{self.where}: {self.kind} {self.name} takes `{key}`, which the framework sets, but which is not "
                    f"known here.\n  {WHERE_KNOWN[key]}"
                )
        try:
            built = cls(**arguments)
            with contextlib.suppress(TypeError):  # one that cannot be hashed or referred to
                _written[built] = f"{self.where}: {self.kind} {self.name}"
            return built
        except VertebraError as err:
            if self.where in str(err) or type(err).__init__ is not Exception.__init__:
                raise
            raise type(err)(f"{self.where}: {self.kind} {self.name}: {err}") from err
        except Exception as err:
            cause = str(err) or "no message"
            if not isinstance(err, ValueError):
                cause = f"{type(err).__name__}: {cause}"
            if isinstance(err, KeyError) and isinstance(shapes := arguments.get("input_shape"), dict):
                cause += f" (input_shape has {', '.join(map(str, shapes))})"
            missing = re.search(r"missing \d+ required positional argument\w*: '(\w+)'", cause)
            if missing and is_injected(self.kind, missing[1]) and missing[1] not in signature.parameters:
                cause += (
                    f".\n  Give the constructor of {cls.__name__} a parameter {missing[1]}, which the framework sets, "
                    "and pass it on to the constructor of its base"
                )
            raise RecipeError(
                f"{self.where}: {self.kind} {self.name} cannot be built: {cause}\n  Raised in {_place_of(err)}"
            ) from err

    def rewritten(self, change: Callable[[ComponentSpec], Mapping[str, Any]]) -> ComponentSpec:
        """A copy in which this block and all that are nested in it have further arguments.

        Args:
            change: what is set in a block, {argument: value}; called for each.
        """
        arguments = _with_specs(self.arguments, lambda nested: nested.rewritten(change))
        return replace(self, arguments=arguments | dict(change(self)))

    def to_dict(self) -> dict[str, Any]:
        """{name: ..., **arguments} in plain data, as a recipe would write it."""
        return {Kind(self.kind).key: self.name, **{key: to_plain(value) for key, value in self.arguments.items()}}

    def nested(self) -> Iterator[ComponentSpec]:
        """The components among the arguments, theirs included."""
        for child in self.children():
            yield child
            yield from child.nested()

    def children(self) -> Iterator[ComponentSpec]:
        """The components among the arguments, theirs not included."""
        yield from _specs_in(self.arguments)


def where_written(component: Any, otherwise: str) -> str:
    """`file:line: kind name` of a component that a recipe built, for messages about it; `otherwise` for any other."""
    with contextlib.suppress(TypeError):
        return _written.get(component, otherwise)
    return otherwise


def described(value: Any) -> str:
    """What a component gave in the place of what its contract says, for messages."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = "a tensor" if type(value).__module__.partition(".")[0] == "torch" else "an array"
        return f"{kind} of shape {tuple(value.shape)} and {value.dtype}"
    return f"a value of type {type(value).__name__}"


def to_plain(value: Any) -> Any:
    """Checked values back to what YAML holds: lists, dicts with text keys, scalars."""
    if hasattr(value, "to_dict"):  # a ComponentSpec or a section
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): to_plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(child) for child in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    from pydantic_core import to_jsonable_python  # paths, enums, sets, dataclasses

    return to_jsonable_python(value)


def _shapes_of(part: Any, spec: ComponentSpec) -> dict[str, Any]:
    """What `output_shape` of a backbone or neck returns, checked: other parts are built from it."""
    called = f"{spec.where}: {spec.kind} {spec.name}"
    try:
        shapes = part.output_shape()
    except (NotImplementedError, AttributeError) as err:
        if not isinstance(err, NotImplementedError) and hasattr(part, "output_shape"):
            raise
        raise PluginError(f"{called} has no method output_shape(), from which the next parts are built") from err
    fields = ("channels", "stride")
    if not isinstance(shapes, Mapping) or not shapes or not all(hasattr(s, f) for s in shapes.values() for f in fields):
        raise PluginError(
            f"{called}: output_shape() returned {shapes!r:.80}, expected {{name: ShapeSpec(channels, stride)}}"
        )
    return dict(shapes)


def _with_specs(value: Any, change: Callable[[ComponentSpec], Any]) -> Any:
    """A copy in which `change` of each ComponentSpec, inside lists and dicts too, stands in its place."""
    if isinstance(value, ComponentSpec):
        return change(value)
    if isinstance(value, (list, tuple)) and any(True for _ in _specs_in(value)):
        return type(value)(_with_specs(child, change) for child in value)
    if isinstance(value, dict):
        return {key: _with_specs(child, change) for key, child in value.items()}
    return value


def _specs_in(value: Any) -> Iterator[ComponentSpec]:
    if isinstance(value, ComponentSpec):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _specs_in(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _specs_in(child)


def _place_of(err: BaseException) -> str:
    frame = traceback.extract_tb(err.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno} ({frame.name})"
