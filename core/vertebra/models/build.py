"""build_model: from a recipe's `model` section to a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy

from vertebra.config.injection import Labels, count_classes, known_facts, labels_of, outputs_of
from vertebra.data.extra_fields import readers_of, with_declared_images
from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.errors import PluginError, RecipeError, VertebraError
from vertebra.models.base_model import BaseModel
from vertebra.models.channels import take_channels
from vertebra.models.contracts import Backbone
from vertebra.models.model import Model
from vertebra.models.pixels import Pixels

if TYPE_CHECKING:
    from vertebra.config import ComponentSpec, DataSection, ModelSection, Recipe

__all__ = ["build_model", "with_one_more_class"]

_KINDS_OF: dict[Labels, tuple[str, ...]] = {
    "things": ("thing_classes",),
    "stuff": ("stuff_classes",),
    "all": ("thing_classes", "stuff_classes"),
}


def build_model(
    recipe: Recipe, num_classes: int | None = None, metadata: Any | None = None, *, pretrained: bool = True
) -> BaseModel:
    """The model of a recipe, on the CPU, in training mode: a `Model` of backbone, neck and heads, or another one.

    The whole model's `model.weights` are not read here: see `vertebra.models.weights`.

    Args:
        recipe: a validated recipe; of its sections `model` counts.
        num_classes: for parts that do not set it; by default the number in `metadata` of the classes that each head has
            scores for (`Head.labels`). Heads inside a head that has others keep the number in `metadata`.
        metadata: the dataset's, given to parts that ask for it. Where neither is given and a part needs one of them,
            the recipe's own dataset is read.
        pretrained: False does not load the starting weights of backbone and heads: right where the whole model's
            weights are loaded afterwards, so that their files need not be at hand.
    """
    section = recipe.model
    if num_classes is None and metadata is None and (where := _needs_dataset(section)):
        metadata = _own_metadata(recipe, where)
    if metadata is not None:
        _check_written_classes(section, count_classes(metadata))
    data = with_declared_images(recipe, metadata).data
    pixels = _pixels(recipe, data)
    channels = pixels["image"].channels
    given = {} if num_classes is None else {"num_classes": num_classes, "given_classes": num_classes}
    counts = {} if metadata is None else _label_counts(metadata)
    whole = section.whole if pretrained else _without_weights(section.whole)
    model = whole.build(**known_facts(metadata, label_counts=counts, in_channels=channels, **given))
    if not isinstance(model, BaseModel):
        raise PluginError(f"{whole.where}: model {whole.name} is not a vertebra.models.BaseModel; derive it from that")
    _check_sizes_known(model, whole)
    for one in model.modules():
        if isinstance(one, BaseModel):
            one.metadata = metadata
            one.set_pixels(pixels, section.pixel_order)
    _take_channels(model, whole, channels)
    return model


def _check_sizes_known(model: nn.Module, whole: ComponentSpec) -> None:
    """Raises PluginError for lazy layers: weights, optimizers and checkpoints need the sizes before the first image."""
    lazy = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if is_lazy(value)]
    if lazy:
        raise PluginError(
            f"{whole.where}: model {whole.name}: {lazy[0]} gets its size only from the first image (nn.LazyConv2d or "
            f"another lazy layer; {len(lazy)} parameters and buffers).\n"
            "  Use a layer of known size: input_shape has the channels of the features that a neck or head gets, "
            "in_channels those of the images"
        )


def _pixels(recipe: Recipe, data: DataSection) -> dict[str, Pixels]:
    """How the images of a recipe are normalized, by name."""
    section, reader = recipe.model, data.image.build()
    if section.pixel_order == "bgr" and reader.channels != 3:
        raise RecipeError(
            f"{recipe.source}: model.pixel_order is bgr, which is for 3 channels, but the image reader gives "
            f"{reader.channels}; remove it"
        )
    own = Pixels(*_numbers(section, reader.channels, "model"), reader.dtype)
    further = {
        name: Pixels(*_numbers(data.fields[name], one.channels, f"data.fields.{name}", own), one.dtype)
        for name, one in readers_of(data.fields).items()
    }
    return {"image": own, **further}


def _take_channels(model: BaseModel, whole: ComponentSpec, channels: int) -> None:
    """Makes all backbones take images of this many channels; a model without one, unless it, or one in it, has asked
    for them."""
    backbones: list[nn.Module] = [one for one in model.modules() if isinstance(one, Backbone)]
    backbones = backbones or [one.backbone for one in model.modules() if isinstance(one, Model)]
    asked = any("in_channels" in one.signature.parameters for one in (whole, *whole.nested()) if one.kind == "model")
    for one in backbones or ([] if asked else [model]):
        take_channels(one, channels)


def _numbers(
    section: Any, channels: int, where: str, otherwise: Pixels | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """pixel_mean and pixel_std of a section for an image of this many channels; `otherwise` where it has none."""
    found = []
    for name, given in (("pixel_mean", otherwise and otherwise.mean), ("pixel_std", otherwise and otherwise.std)):
        values: Any = getattr(section, name) or given
        if values == "auto":
            raise RecipeError(
                f"{where}.{name} is auto, which a training measures and writes into the recipe of its run.\n"
                "  Use that recipe (RUN/recipe.yaml), or write the numbers"
            )
        if len(values) != channels:
            raise RecipeError(
                f"{where}.{name} has {len(values)} values, but the image reader gives {channels} channels.\n"
                f"  Write {channels} values, or auto to measure them in the training set"
            )
        found.append(tuple(values))
    return found[0], found[1]


def _without_weights(spec: ComponentSpec) -> ComponentSpec:
    """The block, and those nested in it, with `weights` (ours) and `pretrained` (timm's) switched off."""
    off = {"weights": None, "pretrained": False}
    return spec.rewritten(lambda one: {key: value for key, value in off.items() if key in one.arguments})


def _check_written_classes(section: ModelSection, in_dataset: int | None) -> None:
    """A detection head must have room for the dataset's classes; more are allowed (weights of another dataset)."""
    for name, spec in {"": section.whole, **section.parts}.items():
        written = spec.arguments.get("num_classes")
        detects = "instances" in outputs_of(spec.signature.cls)
        if detects and isinstance(written, int) and in_dataset is not None and written < in_dataset:
            raise RecipeError(
                f"{spec.where}: model{name and '.'}{name}.num_classes is {written}, but the dataset has {in_dataset} "
                "classes.\n"
                f"  Remove num_classes (the dataset then decides), or write at least {in_dataset}"
            )


def _needs_dataset(section: ModelSection) -> str | None:
    """Which part cannot be built without a dataset's classes or metadata (`file:line: kind name`); None if all can."""
    return _first_without(section.whole, frozenset())


def _first_without(spec: ComponentSpec, written: frozenset[str]) -> str | None:
    """Which component needs a fact that neither it nor one around it writes."""
    written |= spec.arguments.keys()
    if any(spec.signature.needs(name) and name not in written for name in ("num_classes", "metadata")):
        return f"{spec.where}: {spec.kind} {spec.name}"
    found = (_first_without(child, written) for child in spec.children())
    return next((one for one in found if one is not None), None)


def _own_metadata(recipe: Recipe, where: str) -> Any:
    """The metadata of the recipe's first dataset; `where` is the part that asks for it."""
    from vertebra.data import load_dataset  # the data package is needed in this case alone

    spec = next((one for one in (recipe.data.train, recipe.data.val, recipe.data.test) if one), None)
    fix = "Write its num_classes, or give build_model num_classes or metadata."
    if spec is None:
        raise RecipeError(f"{where} needs num_classes, and the recipe names no dataset to take it from.\n  {fix}")
    try:
        return load_dataset(spec, recipe.data.root, recipe.data.fields, recipe.data.image).metadata
    except VertebraError as err:
        raise RecipeError(
            f"{where} needs num_classes, and the recipe's dataset, which gives it, cannot be read:\n  {err}\n  {fix}"
        ) from err


def _label_counts(metadata: Any) -> dict[Labels, int]:
    """Number of classes by what a head may ask for, as far as the dataset names any, see `Head.labels`."""
    things, stuff = (len(getattr(metadata, key, None) or ()) for key in ("thing_classes", "stuff_classes"))
    counts: dict[Labels, int] = {
        "things": things or stuff,
        "stuff": stuff or things,
        "all": things + len(segment_stuff_names(metadata)),
    }
    return {labels: count for labels, count in counts.items() if count}


def with_one_more_class(recipe: Recipe, kind: str) -> Recipe:
    """The recipe with each `num_classes` that its heads write raised by one, for heads that count classes of a kind.

    Args:
        kind: `thing_classes`, `stuff_classes`, or another: nothing changes.
    """

    def raised(spec: ComponentSpec) -> dict[str, int]:
        written = spec.arguments.get("num_classes")
        if not isinstance(written, int) or spec.kind in ("backbone", "neck"):
            return {}
        labels = labels_of(spec.signature.cls) if spec.kind in ("head", "model") else "things"
        return {"num_classes": written + 1} if kind in _KINDS_OF[labels] else {}

    return replace(recipe, model=replace(recipe.model, whole=recipe.model.whole.rewritten(raised)))
