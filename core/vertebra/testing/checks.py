"""Checks that several conformance classes share. Each raises AssertionError with one sentence on what is wrong."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor, nn

from vertebra.config import ComponentSpec
from vertebra.config.check import Mistakes, check_value
from vertebra.config.component import Kind
from vertebra.config.injection import known_facts
from vertebra.config.yaml_reader import from_plain
from vertebra.registry import REGISTRIES
from vertebra.testing.inputs import make_metadata

__all__ = [
    "backward",
    "build_from_defaults",
    "check_gradients",
    "check_losses",
    "check_same",
    "check_state_round_trip",
    "checked_spec",
    "once",
    "require",
    "tensors_in",
]

Part = TypeVar("Part", bound=nn.Module)
T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    """`assert` that also holds under `python -O`."""
    if not condition:
        raise AssertionError(message)


def checked_spec(kind: str, name: str, arguments: Mapping[str, Any] | None = None) -> ComponentSpec:
    """A block `{name: ..., **arguments}`, checked against the constructor just as a recipe's is.

    Raises:
        RecipeError, PluginError: as `load_recipe` would.
    """
    where = f"{name}'s conformance test"
    block = from_plain({Kind(kind).key: name, **(arguments or {})}, where, Path.cwd())
    mistakes = Mistakes()
    spec = check_value(Annotated[ComponentSpec, Kind(kind)], block, kind, mistakes)
    mistakes.raise_if_any(where)
    return spec


def build_from_defaults(kind: str, name: str, arguments: Mapping[str, Any], **injected: Any) -> Any:
    """The component as a recipe would build it from its name and these arguments, on the hand-made dataset."""
    require(isinstance(name, str) and bool(name), "set `component` to the component's name, as a recipe writes it")
    built = checked_spec(kind, name, arguments).build(**(known_facts(make_metadata()) | injected))
    require(isinstance(built, REGISTRIES[kind].get(name)), f"building {name} gave a {type(built).__name__}")
    return built


def tensors_in(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists, tuples, dataclasses and structures, with its place."""
    if isinstance(value, Tensor):
        yield where or "value", value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from tensors_in(child, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        for key, child in zip(names, value, strict=True):
            yield from tensors_in(child, f"{where}.{key}" if isinstance(key, str) else f"{where}[{key}]")
    elif hasattr(value, "get_fields"):  # Instances
        for key, child in value.get_fields().items():
            yield from tensors_in(child, f"{where}.{key}")
    elif is_dataclass(value):
        for each in fields(value):
            yield from tensors_in(getattr(value, each.name), f"{where}.{each.name}")
    elif isinstance(getattr(value, "tensor", None), Tensor):  # Boxes, BitMasks, Keypoints
        yield f"{where}.tensor", value.tensor


def check_same(first: Any, second: Any, what: str, tolerance: float | None = None) -> None:
    """All tensors of both agree: bit by bit, or (with a tolerance) to that share of the largest value."""
    left, right = list(tensors_in(first)), list(tensors_in(second))
    require([place for place, _ in left] == [place for place, _ in right], f"{what}: not the same tensors in both")
    for (place, a), (_, b) in zip(left, right, strict=True):
        require(
            a.shape == b.shape and a.dtype == b.dtype,
            f"{what}: {place} is {tuple(a.shape)} {a.dtype} in one and {tuple(b.shape)} {b.dtype} in the other",
        )
        if tolerance is None:
            same = torch.equal(a, b)
        else:
            scale = max(1.0, float(a.double().abs().max())) if a.numel() else 1.0
            same = torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * scale)
        if not same:
            difference = float((a.detach().double() - b.detach().double()).abs().max())
            raise AssertionError(f"{what}: {place} differs by up to {difference:.3g}")


def check_losses(losses: Any, what: str, *, gradient: bool = True) -> Tensor:
    """A dict of named finite scalars that can be summed and differentiated; returns their sum.

    Args:
        gradient: it must have one; what a model with its own training step returns has been minimized already.
    """
    require(isinstance(losses, dict) and bool(losses), f"{what}: losses are a dict of named scalars, got {losses!r}")
    for name, loss in losses.items():
        require(isinstance(name, str), f"{what}: the loss name {name!r} is not a string")
        require(
            isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point(),
            f"{what}: loss {name} must be a scalar float tensor, it is {_short(loss)}",
        )
        value = float(loss.detach())
        require(math.isfinite(value), f"{what}: loss {name} is {value}")
    total = sum(losses.values())
    require(
        total.requires_grad or not gradient,
        f"{what}: the losses have no gradient. Where there is nothing to learn, return 0 times something computed",
    )
    return total


def backward(model: nn.Module, losses: dict[str, Tensor], what: str) -> None:
    """Checks losses and runs the backward pass from zeroed gradients."""
    model.zero_grad(set_to_none=True)
    total = check_losses(losses, what)
    try:
        total.backward()
    except RuntimeError as err:
        if "modified by an inplace operation" not in str(err):
            raise
        raise AssertionError(
            f"{what}: something changes values in place that the backward pass needs, such as feature maps or raw "
            "outputs. Look for relu_, mul_, +=, inplace=True or an assignment to a slice; work on a new tensor"
        ) from err


def check_gradients(module: nn.Module, what: str) -> None:
    """After a backward pass: every trainable parameter has a finite gradient, be it 0."""
    gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    require(
        not missing,
        f"{what}: {len(missing)} parameters get no gradient ({', '.join(missing[:5])}), so a distributed run would "
        "hang. Use them in every step, or do not create them; where there are no objects, multiply by 0",
    )
    bad = [name for name, gradient in gradients.items() if gradient is not None and not torch.isfinite(gradient).all()]
    require(not bad, f"{what}: the gradients of {', '.join(bad[:5])} are not finite")


def check_state_round_trip(source: Part, target: Part, compute: Callable[[Part], Any]) -> None:
    """The state dict, written and read as a checkpoint is, makes a module of another seed the same one bit by bit.

    Args:
        source: the module whose state is saved.
        target: the same module, built under another seed.
        compute: what both modules must agree on; they are in evaluation mode.
    """
    source, target = source.eval(), target.eval()
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as err:
        raise AssertionError(f"its state dict does not load with weights_only=True: {err}") from err
    target.load_state_dict(state)
    check_same(source.state_dict(), target.state_dict(), "state dict after a round trip")
    with torch.no_grad():
        check_same(
            compute(source),
            compute(target),
            "a module with the same state dict computes something else (state that is neither parameter nor buffer?)",
        )


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {tuple(value.shape)} {value.dtype} tensor"
    return f"a {type(value).__name__}"


def once(kept: dict[tuple, T], key: tuple, make: Callable[[], T]) -> T:
    """`make()`, kept until another key comes: the checks of one class run one after the other."""
    if key not in kept:
        made = make()
        kept.clear()
        kept[key] = made
    return kept[key]
