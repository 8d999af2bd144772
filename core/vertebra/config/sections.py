"""The fixed sections of a recipe as typed dataclasses: `model`, `data`, `train`, `evaluate`, and the whole.

A field's annotation is what a recipe is checked against; `problems` reports what no annotation can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from vertebra.config.component import ComponentSpec, Kind
from vertebra.config.extra_fields import FieldSection, ReaderSpec, name_fault
from vertebra.config.section import Section, within
from vertebra_eval.files import write_text

__all__ = ["DataSection", "DatasetSpec", "EvaluateSection", "ModelSection", "Recipe", "TrainSection"]

ModelSpec = Annotated[ComponentSpec, Kind("model")]
FormatSpec = Annotated[ComponentSpec, Kind("format")]
TransformSpec = Annotated[ComponentSpec, Kind("transform")]
SamplerSpec = Annotated[ComponentSpec, Kind("sampler")]
OptimizerSpec = Annotated[ComponentSpec, Kind("optimizer")]
ScheduleSpec = Annotated[ComponentSpec, Kind("schedule")]
HookSpec = Annotated[ComponentSpec, Kind("hook")]
EvaluatorSpec = Annotated[ComponentSpec, Kind("evaluator")]
InferenceSpec = Annotated[ComponentSpec, Kind("part", "InferenceMode")]
DatasetSpec = str | FormatSpec  # a name in the DatasetCatalog, or {format: ..., ...}
Amp = Literal["auto", "bf16", "fp16", "off"]

_MOST_IMAGES, _MOST_WORKERS, _MOST_EPOCHS = 1 << 17, 1024, 1_000_000_000
"""More than anyone has used of each: beyond it stands a slip, with which a run would fill the memory or never end."""
_DEFAULT = "(default)"  # ends `where` of what no recipe writes
_EPOCHS = re.compile(r"(\d+(\.\d*)?|\.\d+) epochs?")


def _default(kind: str, name: str, **arguments: Any) -> ComponentSpec:
    return ComponentSpec(kind, name, arguments, _DEFAULT)


def _detectron2_training() -> list[ComponentSpec]:
    """Detectron2's default augmentation: shorter edge one of 640, 672, ..., 800 pixels, and a flip."""
    return [
        _default("transform", "ResizeShortestEdge", short_edge=list(range(640, 801, 32)), max_size=1333),
        _default("transform", "RandomFlip"),
    ]


@dataclass(frozen=True, kw_only=True)
class ModelSection(Section):
    """Section `model`: a component of that kind (`Model`, of backbone, neck and heads, where it has no `name`), and how
    its input is normalized."""

    component: ClassVar[str] = "whole"
    whole: ModelSpec
    pixel_mean: tuple[float, ...] | Literal["auto"] = (123.675, 116.28, 103.53)
    """Of each channel, in `pixel_order`; by default ImageNet's, 0 to 255. auto: measured when the training starts."""
    pixel_std: tuple[float, ...] | Literal["auto"] = (58.395, 57.12, 57.375)
    pixel_order: Literal["rgb", "bgr"] = "rgb"  # what the weights were trained with; images are always RGB
    weights: str | None = None  # path or URL of the whole model's starting weights

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        counts = [len(v) for v in (values.get("pixel_mean"), values.get("pixel_std")) if v is not None and v != "auto"]
        if len(set(counts)) > 1:
            yield "pixel_std", f"has {counts[1]} values, but pixel_mean has {counts[0]}; expected one for each channel"
        for name in ("pixel_mean", "pixel_std"):
            numbers = values.get(name, (1,))
            if numbers == "auto":
                continue
            if not numbers or not all(map(math.isfinite, numbers)) or (name == "pixel_std" and min(numbers) <= 0):
                yield name, f"is {list(numbers)}, expected numbers{' above 0' if name == 'pixel_std' else ''}"

    @property
    def backbone(self) -> Any:
        """Of a model that has one of this name, as `Model` has, its ComponentSpec."""
        return self.whole.arguments.get("backbone")

    @property
    def neck(self) -> Any:
        return self.whole.arguments.get("neck")

    @property
    def heads(self) -> dict[str, ComponentSpec]:
        """The heads of a `Model`; of another one, what it has under this name."""
        return self.whole.arguments.get("heads") or {}

    @property
    def parts(self) -> dict[str, ComponentSpec]:
        """The components that the model is built of, by path (`backbone`, `heads.boxes`); those of models in it too."""
        return dict(_parts_of(self.whole.arguments, ""))


def _parts_of(value: Any, path: str) -> Iterator[tuple[str, ComponentSpec]]:
    if isinstance(value, ComponentSpec) and value.kind != "model":
        yield path, value
        return
    inside = value.arguments if isinstance(value, ComponentSpec) else value
    if isinstance(inside, (list, tuple)):
        inside = dict(enumerate(inside))
    for key, child in inside.items() if isinstance(inside, Mapping) else ():
        yield from _parts_of(child, f"{path}.{key}" if path else str(key))


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Section `data`: the datasets of the three splits and what is done to their images."""

    image: ReaderSpec = field(default_factory=lambda: _default("part", "RGB"))  # how image files are read
    root: str | None = None  # relative paths of the formats start here; itself relative to the current directory
    train: DatasetSpec | list[DatasetSpec] | None = None
    val: DatasetSpec | list[DatasetSpec] | None = None
    test: DatasetSpec | list[DatasetSpec] | None = None
    train_transforms: list[TransformSpec] = field(default_factory=_detectron2_training)
    eval_transforms: list[TransformSpec] = field(
        default_factory=lambda: [_default("transform", "ResizeShortestEdge", short_edge=800, max_size=1333)]
    )
    close_mixing_epochs: int = 0  # the last epochs, which skip transforms that join images (Mosaic, MixUp)
    sampler: SamplerSpec | None = None  # null: TrainingSampler
    aspect_ratio_grouping: bool = True
    filter_empty: bool = True  # drop training images without usable annotations
    workers: int = 2
    timeout: float = 600.0  # seconds to wait for a batch of the workers before that is an error
    max_bad_images: int = 0  # bad training images that are skipped, and reported, before the run stops
    mask_format: Literal["polygon", "bitmask", "none"] = "polygon"
    fields: dict[str, FieldSection] = field(default_factory=dict)  # what annotations or images have beyond the usual

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name in values.get("fields", ()):
            if fault := name_fault(name):
                yield "fields", fault
        any_number = (0, math.inf)
        yield from within(values, workers=(0, _MOST_WORKERS), max_bad_images=any_number, close_mixing_epochs=any_number)
        if (timeout := values.get("timeout")) is not None and not timeout > 0:
            yield "timeout", f"is {timeout:g}, expected seconds above 0"


@dataclass(frozen=True, kw_only=True)
class OptimizerSection(Section):
    """An entry of `train.optimizers`: an optimizer, and the modules of the model that it trains."""

    component: ClassVar[str] = "whole"
    whole: OptimizerSpec
    modules: list[str] = field(default_factory=list)  # such as student.backbone; by default the one of the entry's name


@dataclass(frozen=True, kw_only=True)
class FreezeSection(Section):
    """An entry of `train.freeze`: parameters that are not trained.

    Args:
        match: patterns of names, with * for anything, dots included; a module's name stands for all in it.
        until: step from which on they are trained, or "N epochs"; None: never.
    """

    brief: ClassVar[bool] = True
    match: str | list[str]
    until: int | str | None = None

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _period_fault("until", values.get("until"))


@dataclass(frozen=True, kw_only=True)
class TrainSection(Section):
    """Section `train`: how long, how fast, and what happens on the way."""

    steps: int | None = None  # optimizer steps; 90000 where neither steps nor epochs are given
    epochs: float | None = None
    batch_size: int = 16  # images per step, over all processes
    optimizer: OptimizerSpec = field(default_factory=lambda: _default("optimizer", "SGD"))
    optimizers: dict[str, OptimizerSection] = field(default_factory=dict)  # of a model that owns its step, by name
    freeze: list[FreezeSection] = field(default_factory=list)  # parameters that are not trained, or not from the start
    schedule: ScheduleSpec = field(default_factory=lambda: _default("schedule", "WarmupMultiStep"))
    amp: Amp = "auto"  # auto: bf16 where the device computes in it, otherwise off
    channels_last: Literal["auto"] | bool = "auto"  # weights and batches in memory as NHWC; auto: where that is faster
    clip_gradients: float | None = None  # L2 norm over all parameters; null leaves them alone
    checkpoint_every: int | str = "1 epoch"  # steps, or "N epochs"
    keep_checkpoints: int = 2
    evaluate_every: int | str | None = None  # null: at the end only
    log_every: int = 20  # steps
    hooks: list[HookSpec] = field(default_factory=list)
    device: str = "auto"
    compile: bool = False
    find_unused_parameters: bool = False  # several processes: allow steps that do not use all parameters; slower

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", 90_000)
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of `optimizer` and `optimizers` the one that is used."""
        unused = "optimizer" if self.optimizers else "optimizers"
        return {name: value for name, value in super().to_dict().items() if name != unused}

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        steps, epochs, norm = (values.get(name) for name in ("steps", "epochs", "clip_gradients"))
        if steps is not None and epochs is not None:
            yield "epochs", f"is {epochs:g}, but steps is {steps} too; expected one of the two (the other null)"
        if epochs is not None and not 0 < epochs < _MOST_EPOCHS:
            yield "epochs", f"is {epochs:g}, expected a number above 0 and below {_MOST_EPOCHS:,}"
        if norm is not None and not norm > 0:
            yield "clip_gradients", f"is {norm:g}, expected a norm above 0, or null for no clipping"
        written = not getattr(values.get("optimizer"), "where", _DEFAULT).endswith(_DEFAULT)
        if values.get("optimizers") and written:
            yield "optimizers", "stands beside train.optimizer; expected one of the two"
        yield from within(values, steps=(1, _MOST_EPOCHS), batch_size=(1, _MOST_IMAGES))
        yield from within(values, keep_checkpoints=(1, math.inf), log_every=(1, math.inf))
        for name in ("checkpoint_every", "evaluate_every"):
            yield from _period_fault(name, values.get(name))


def _period_fault(name: str, value: int | str | None) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of steps, or a text of epochs."""
    if isinstance(value, str):
        match = _EPOCHS.fullmatch(value)
        if match is None or not 0 < float(match[1]) < _MOST_EPOCHS:
            yield name, f'is "{value:.60}", expected a number of steps, or text like "1 epoch" or "5 epochs"'
    elif value is not None and value < 1:
        yield name, f"is {value}, expected at least 1 step"


@dataclass(frozen=True, kw_only=True)
class EvaluateSection(Section):
    """Section `evaluate`: on which split, by which evaluators, and what is written."""

    evaluators: list[EvaluatorSpec] = field(default_factory=lambda: [_default("evaluator", "COCOEvaluator")])
    inference: InferenceSpec | list[InferenceSpec] | None = None  # windows, scales; of several the first is outermost
    batch_size: int = 1  # images per process
    split: Literal["val", "test", "train"] = "val"
    pictures: int = 16  # images drawn with predictions beside ground truth
    report: bool = True  # one self-contained report.html
    amp: Amp = "auto"

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from within(values, batch_size=(1, _MOST_IMAGES), pictures=(0, math.inf))


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """A whole recipe, checked. Two that differ only in where they were read from are equal."""

    seed: int = 0
    output: str = "runs/{name}"  # the run's folder; {name} is the file's name without .yaml
    requires: list[str] = field(default_factory=list)  # distributions, perhaps with version bounds
    plugins: list[str] = field(default_factory=list)  # local plugin files, as absolute paths
    model: ModelSection
    data: DataSection = field(default_factory=DataSection)
    train: TrainSection = field(default_factory=TrainSection)
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    source: str = field(default="", compare=False)  # the file
    name: str = field(default="recipe", compare=False)  # its stem

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from within(values, seed=(0, math.inf))

    @property
    def run_folder(self) -> str:
        """`output` with `{name}` filled in."""
        return self.output.replace("{name}", self.name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `requires` only where there are any."""
        plain = super().to_dict()
        return plain if self.requires else {name: value for name, value in plain.items() if name != "requires"}

    def to_yaml(self) -> str:
        """The resolved recipe: bases merged, overrides applied, sections complete. Loads to an equal recipe."""
        from vertebra.config.yaml_writer import dump_yaml

        return dump_yaml(self.to_dict())

    def save(self, path: str | Path) -> None:
        """Writes `to_yaml` to a file; its folder must exist."""
        write_text(path, self.to_yaml())
