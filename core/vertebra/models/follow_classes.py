"""Weights of one list of classes for a model of another: rows follow the classes by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vertebra.data.catalog import Metadata
from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.models.base_model import BaseModel
from vertebra.models.build import build_model, with_one_more_class
from vertebra.models.class_rows import ClassRows
from vertebra.models.contracts import Head

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["follow_classes"]

_ALL = "all classes"  # things, then the stuff that is not among them, as heads with `labels = "all"` count them
_KINDS = ("thing_classes", "stuff_classes", _ALL, "keypoint_names")


def follow_classes(
    model: nn.Module, recipe: Recipe, state: Mapping[str, Tensor], kept: Any, metadata: Any
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights for a model of other classes: rows of known names go to their new places, the others are the model's own.

    Args:
        model: built from `recipe` for `metadata`, with starting values.
        kept: facts of the dataset that the weights were trained on.
        metadata: facts of the dataset that the model is for.
    Returns:
        The weights, and names of the tensors that start anew because nothing says whose their rows are.
    """
    found, anew = dict(state), []
    own, layouts = model.state_dict(), _declared(model)
    for kind in _KINDS:
        there, here = (_names(one, kind) for one in (kept, metadata))
        if there == here or not there or not here:
            continue
        place = {name: number for number, name in enumerate(here)}
        numbers = {number: place[name] for number, name in enumerate(there) if name in place}
        for name, growth in _depending(model, recipe, metadata, kind).items():
            if name not in found:
                continue
            layout = next((rows for path, rows in layouts.items() if f"{name}.".startswith(f"{path}.")), None)
            moved = _moved(found[name], own[name], growth, layout, (len(there), len(here)), numbers)
            if moved is None:
                anew.append(name)
            found[name] = own[name].clone() if moved is None else moved
    return found, anew


def _moved(
    given: Tensor,
    own: Tensor,
    growth: Mapping[int, int],
    layout: ClassRows | None,
    counts: tuple[int, int],
    numbers: Mapping[int, int],
) -> Tensor | None:
    """`own` with what `given` knows, along each dimension that grows with the classes; None where that is not known."""
    dims = tuple(growth)
    first = tuple(range(len(dims)))
    there, here = given.movedim(dims, first), own.clone().movedim(dims, first)
    if there.shape[len(dims) :] != here.shape[len(dims) :]:
        return None
    pairs = []
    for place, (dim, more) in enumerate(growth.items()):
        sizes = (there.shape[place], here.shape[place])
        declared = layout if dim == 0 else None
        plain = ClassRows() if more == 1 and sizes == counts else None
        rows = declared or plain
        found = None if rows is None else rows.pairs(sizes, more // rows.width, numbers)
        if found is None:
            return None
        pairs.append(found)
    old, new = (torch.meshgrid(*(pair[:, side] for pair in pairs), indexing="ij") for side in (0, 1))
    here[new] = there[old].to(here)
    return here.movedim(first, dims).contiguous()


def _declared(model: nn.Module) -> dict[str, ClassRows]:
    """{name of a module or parameter: its rows}, from every module that tells; names as in the state dict."""
    tells = {prefix: getattr(module, "class_rows", None) for prefix, module in model.named_modules()}
    return {
        f"{prefix}.{name}".lstrip("."): rows
        for prefix, tell in tells.items()
        if callable(tell)
        for name, rows in tell().items()
    }


def _depending(model: nn.Module, recipe: Recipe, metadata: Any, kind: str) -> dict[str, dict[int, int]]:
    """{tensor: {dimension: rows more}} that depend on the number of classes of a kind: seen by building one more."""
    if kind == "keypoint_names":
        return _grown(model, recipe, metadata, kind)
    of_all = _in_heads_for_all(model)
    if kind == _ALL and not of_all:
        return {}
    has_labels = bool(_names(metadata, "stuff_classes"))
    labels = _grown(model, recipe, metadata, "stuff_classes") if has_labels else {}
    things = _grown(model, recipe, metadata, "thing_classes") if kind == "thing_classes" or not has_labels else {}
    if kind == "thing_classes":  # labels may begin with the things
        return {name: growth for name, growth in things.items() if name not in labels and name not in of_all}
    return {name: growth for name, growth in (labels or things).items() if (name in of_all) == (kind == _ALL)}


def _in_heads_for_all(model: nn.Module) -> set[str]:
    """Names of the tensors whose innermost head, or whole model, has scores for all classes."""
    labels: dict[str, str] = {}
    for path, head in model.named_modules():  # outer ones first
        if isinstance(head, (Head, BaseModel)):
            labels |= {f"{path}.{name}".lstrip("."): head.labels for name in head.state_dict()}
    return {name for name, counted in labels.items() if counted == "all"}


def _names(metadata: Any, kind: str) -> list[str]:
    if kind == _ALL:
        return [*_names(metadata, "thing_classes"), *map(str, segment_stuff_names(metadata))]
    return [str(name) for name in getattr(metadata, kind, None) or ()]


def _grown(model: nn.Module, recipe: Recipe, metadata: Any, kind: str) -> dict[str, dict[int, int]]:
    more = build_model(with_one_more_class(recipe, kind), metadata=_one_more(metadata, kind), pretrained=False)
    grown = more.state_dict()
    return {
        name: {dim: b - a for dim, (a, b) in enumerate(zip(tensor.shape, grown[name].shape, strict=True)) if a != b}
        for name, tensor in model.state_dict().items()
        if name in grown and tensor.shape != grown[name].shape and tensor.dim() == grown[name].dim()
    }


def _one_more(metadata: Any, kind: str) -> Metadata:
    facts = {key: value for key, value in vars(metadata).items() if key != "name"}
    things, labels = list(facts.get("thing_classes") or ()), list(facts.get("stuff_classes") or ())
    facts[kind] = [*facts[kind], "(one more)"]
    if kind == "stuff_classes" and "segment_stuff_classes" in facts:
        facts["segment_stuff_classes"] = [*facts["segment_stuff_classes"], "(one more)"]
    if kind == "thing_classes" and labels[: len(things)] == things:
        facts["stuff_classes"] = [*facts[kind], *labels[len(things) :]]
    return Metadata(metadata.name).set(**facts)
