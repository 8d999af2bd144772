"""What a part of a model gets beside its first argument: whatever its `forward` names, out of what there is to give.

| parameter | what it gets |
| --- | --- |
| `batch` | the Batch, with the ground truth in training; None where only images are at hand (export) |
| `padding_mask` | (N, H, W) bool, True beyond each image |
| `raw` | of a head: {name: raw outputs} of the heads in its `needs` |
| a further image | (N, C, H, W), normalized, as the recipe's `data.fields` declares it; see `needs_fields` |
| an input in `needs_inputs` | a list with the value of each input |
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.errors import DataError, PluginError
from vertebra.models.batch import Batch, describe_input
from vertebra.models.contract import check_attributes
from vertebra_eval.nearest import nearest

__all__ = [
    "Given",
    "check_inputs",
    "check_signature",
    "further_parameters",
    "in_order",
    "inputs_of",
    "not_exportable",
]

_OF_BATCH = ("batch", "padding_mask")
_TAKEN = (
    *_OF_BATCH,
    "raw",
    "image",
    "images",
    "height",
    "width",
    "content_size",
    "instances",
    "sem_seg",
    "self",
    "times",
)
"""Names that an input cannot have: of other keys of the inputs, of what `forward` gets, of a predictor's arguments."""

_GIVE = "In training and evaluation it is a key of the dataset's dicts, such as of the images in a COCO file"


@lru_cache(maxsize=1024)
def further_parameters(method: Any) -> dict[str, bool]:
    """{name: whether it is required} of a function's parameters after `self` and the first one."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = [*inspect.signature(method).parameters.values()][2:]
    return {one.name: one.default is one.empty for one in found if one.kind not in several}


def check_signature(cls: type, method: str = "forward") -> None:
    """What a component's class says of itself is right, and what it requires in `forward` it is given.

    Raises:
        PluginError: one is not; names it and says what to do.
    """
    function = getattr(cls, method)
    kind = getattr(cls, "component_kind", "component")
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""
    where = f"{place}{kind} {cls.__qualname__}"
    check_attributes(cls, where)
    reserved = (*_OF_BATCH, *(("raw",) if kind == "head" else ()))
    images = [name for name, geometry in getattr(cls, "needs_fields", {}).items() if geometry == "image"]
    takes = further_parameters(function)
    inputs = _checked_inputs(cls, where, method, takes)
    for one in [*inspect.signature(function).parameters.values()][2:]:
        if one.kind is one.POSITIONAL_ONLY:
            raise PluginError(
                f"{where}: {method} takes {one.name!r} by position only, but it is given by name; remove /"
            )
    for name, required in takes.items():
        if not required or name in (*reserved, *images, *inputs):
            continue
        near = nearest(name, reserved)
        raise PluginError(
            f"{where}: {method} requires {name!r}, which nothing gives it."
            + (f"\n  Is it {near[0]!r}?" if near else "")
            + f"\n  It gets what it names of: {', '.join(reserved)}; an image that the class names in needs_fields "
            f"({{{name!r}: 'image'}}); an input that it names in needs_inputs ({name!r},).\n"
            "  Other parameters need a default"
        )


def _checked_inputs(cls: type, where: str, method: str, takes: Mapping[str, bool]) -> tuple[str, ...]:
    inputs = getattr(cls, "needs_inputs", ())
    if not isinstance(inputs, (tuple, list)):
        raise PluginError(f"{where}: needs_inputs is {inputs!r}, expected a tuple of names, such as ('text',)")
    for name in inputs:
        if name in _TAKEN:
            raise PluginError(f"{where}: needs_inputs has {name!r}, which means something else; choose another name")
        if name not in takes:
            raise PluginError(f"{where}: needs_inputs has {name!r}, but {method} has no parameter of that name")
    return tuple(inputs)


class Given:
    """What there is to give in one pass through a model.

    Args:
        batch: a Batch, or normalized images (N, C, H, W) alone.
        padding_mask: of images alone, (N, H, W) bool; None: not known.
    """

    def __init__(self, batch: Batch | Tensor, padding_mask: Tensor | None = None) -> None:
        self.batch = batch if isinstance(batch, Batch) else None
        self.images = batch.images if isinstance(batch, Batch) else batch
        self.raw: dict[str, Any] = {}
        self._mask = padding_mask

    def to(self, part: nn.Module, method: str = "forward") -> dict[str, Any]:
        """The arguments for a part, beside the first.

        Raises:
            DataError: an input has no value for a required parameter.
            PluginError: the part requires the batch, but there are images alone.
        """
        found = {}
        for name, required in further_parameters(getattr(type(part), method)).items():
            value = self._value(name, part)
            if value is not None:
                found[name] = value
            elif required:
                raise self._missing(name, part)
        return found

    def _value(self, name: str, part: nn.Module) -> Any:
        if name == "batch":
            return self.batch
        if name == "padding_mask":
            return self._mask if self.batch is None else self.batch.padding_mask
        if name == "raw":
            return {head: self.raw[head] for head in getattr(part, "needs", ())} or None
        if self.batch is None:
            return None
        if name in getattr(part, "needs_inputs", ()):
            values = [one.get(name) for one in self.batch.inputs]
            if any(value is None for value in values):
                if any(value is not None for value in values):  # not for a part of the batch alone
                    raise self._missing(name, part)
                return None
            return values
        return self.batch.named_images.get(name)

    def _missing(self, name: str, part: nn.Module) -> Exception:
        where = where_written(part, type(part).__name__)
        if self.batch is None:
            fix = "compute(batch)" if name != "padding_mask" else "compute(batch), or compute(images, padding_mask)"
            return PluginError(f"{where} requires {name!r}, but was given images alone: {fix}")
        if name not in getattr(part, "needs_inputs", ()):
            return PluginError(
                f"{where} requires {name!r}, which is not an input in its needs_inputs, and the model has no further "
                f"image of that name.\n  An image: declare it in data.fields.{name}, with the geometry image"
            )
        lacking = [row for row, one in enumerate(self.batch.inputs) if one.get(name) is None]
        source = describe_input(self.batch.inputs[lacking[0]], lacking[0]) if lacking else "the batch"
        return DataError(
            f"{source} has no {name!r}, which {where} takes.\n  {_GIVE}; in prediction: predictor(image, {name}=...)"
        )


def inputs_of(parts: Iterable[nn.Module], *, training: bool = False) -> dict[str, bool]:
    """{name: whether it is required} of what parts take from the inputs beside images.

    Args:
        training: count those of parts that are for training only, too.
    """
    found: dict[str, bool] = {}
    for part in parts:
        names = getattr(part, "needs_inputs", ())
        if names and (training or not getattr(part, "training_only", False)):
            method = "network" if getattr(part, "component_kind", None) == "model" else "forward"
            takes = further_parameters(getattr(type(part), method))
            found |= {name: found.get(name, False) or takes.get(name, False) for name in names}
    return found


def check_inputs(model: nn.Module, dataset: Iterable[Mapping[str, Any]], *, training: bool) -> None:
    """Every dict of a dataset has the inputs that a model requires.

    Raises:
        DataError: one has not; names its image.
    """
    required = [name for name, needed in inputs_of(model.modules(), training=training).items() if needed]
    for row, one in enumerate(dataset) if required else ():
        for name in required:
            if one.get(name) is None:
                part = next(each for each in model.modules() if name in getattr(each, "needs_inputs", ()))
                raise DataError(
                    f"{one.get('file_name', f'image {row}')} has no {name!r}, which "
                    f"{where_written(part, type(part).__name__)} takes.\n  {_GIVE}"
                )


def in_order(heads: Mapping[str, nn.Module]) -> list[str]:
    """Names of heads, each after those that it needs.

    Raises:
        PluginError: a head needs one that is not there or is skipped outside of training, or two need each other.
    """
    done: list[str] = []
    waiting = {name: _needs_of(name, heads) for name in heads}
    while waiting:
        ready = next((name for name, needs in waiting.items() if set(needs) <= set(done)), None)
        if ready is None:
            raise PluginError(f"the heads {', '.join(waiting)} need each other's raw outputs in a circle")
        done.append(ready)
        del waiting[ready]
    return done


def _needs_of(name: str, heads: Mapping[str, nn.Module]) -> Sequence[str]:
    head = heads[name]
    where, needs = where_written(head, type(head).__name__), getattr(head, "needs", ())
    if isinstance(needs, str):
        raise PluginError(f"{where}: needs is {needs!r}, expected a tuple of names: ({needs!r},)")
    if further_parameters(type(head).forward).get("raw") and not needs:
        raise PluginError(f"{where}: forward requires `raw`, but `needs` names no head whose raw outputs are meant")
    for other in needs:
        if other not in heads:
            near = ", ".join(nearest(other, heads)) or ", ".join(one for one in heads if one != name) or "none"
            raise PluginError(f"{where} needs the raw outputs of the head {other!r}.\n  Heads beside it: {near}")
        if getattr(heads[other], "training_only", False) and not getattr(head, "training_only", False):
            raise PluginError(f"{where} needs the raw outputs of the head {other!r}, which is for training only")
    return needs


def not_exportable(parts: Iterable[tuple[nn.Module, str]]) -> Iterator[str]:
    """What parts require in a method that a graph of images cannot give, in sentences."""
    for part, method in parts:
        for name, required in further_parameters(getattr(type(part), method)).items():
            if not required or name in ("padding_mask", "raw"):
                continue
            where = where_written(part, type(part).__name__)
            if name == "batch":
                yield f"{where} takes the batch with its ground truth in {method}, which no graph of images has"
            else:
                yield f"{where} takes {name!r} in {method}, but a graph has images as its only input"
