"""What a Trainer puts together: the parts of one training and its plan, built from a recipe or given by hand."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vertebra.config.injection import known_facts
from vertebra.engine.blame import check_methods, owns_step
from vertebra.engine.dataset_facts import facts_to_keep
from vertebra.engine.hooks.freeze import frozen_by
from vertebra.engine.plugin_files import PluginFile, read_plugin_files, recipe_with_copies
from vertebra.engine.rng import seed_everything
from vertebra.engine.schedules import Schedule
from vertebra.engine.several_optimizers import SeveralOptimizers, build_several
from vertebra.engine.starting_weights import start_from
from vertebra.errors import RecipeError
from vertebra.models.contracts import Loss
from vertebra.models.given import check_inputs
from vertebra.runtime import distributed, use_channels_last
from vertebra.runtime.process import open_process

if TYPE_CHECKING:
    from vertebra.config import ComponentSpec, Recipe, TrainSection
    from vertebra.data import Metadata
    from vertebra.engine.hook import Hook
    from vertebra.models import BaseModel

__all__ = ["Parts", "Plan", "build_optimizer", "build_parts", "frozen_parameters", "parse_period"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of a training, periods in steps."""

    steps: int
    batch_size: int = 1  # images per step over all processes, for the log only
    seed: int = 0
    amp: str = "off"
    clip_gradients: float | None = None
    checkpoint_every: int | None = None  # None: at the end only, like the next one
    keep_checkpoints: int = 2
    evaluate_every: int | None = None
    log_every: int = 20
    find_unused_parameters: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RecipeError(f"train.steps is {self.steps}; a training needs at least one step")
        for name in ("checkpoint_every", "evaluate_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"train.{name} is {value}; expected at least one step")


@dataclass(kw_only=True)
class Parts:
    """All parts of a training run.

    Args:
        model: on its device; maps a batch to {name: scalar loss}.
        batches: `batches(start)` yields batch number `start` and all that follow, just as a run that never stopped
            would see them; it draws nothing from the global random generators.
        frozen: step from which on a parameter is trained, by name; None: never.
        hooks: those of the recipe, beside the default ones.
        evaluate: `evaluate(model, folder or None, last) -> {name: number or None}`, in all processes; `last` where the
            training is over and pictures are worth their time. None: nothing to evaluate on.
        notes: further lines for the head of the log.
        data_notes: what was logged when the training set was read, for the log file.
        plugin_files: the local plugins, which the run's folder keeps and its checkpoints know by their hashes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | SeveralOptimizers
    batches: Callable[[int], Iterator[Any]]
    plan: Plan
    schedule: Schedule | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    frozen: Mapping[str, int | None] = field(default_factory=dict)
    hooks: Sequence[Hook] = ()
    evaluate: Callable[[nn.Module, Path | None, bool], dict[str, float | None]] | None = None
    recipe_text: str = ""
    recipe_source: str = ""
    notes: list[str] = field(default_factory=list)
    data_notes: list[str] = field(default_factory=list)
    plugin_files: Sequence[PluginFile] = ()


def build_parts(recipe: Recipe, *, starting_weights: bool = True) -> Parts:
    """Seeds the process, joins the process group and builds what the recipe describes.

    Args:
        starting_weights: False loads no pretrained weights, for a run that is resumed and has its own.
    """
    from vertebra.data import build_train_loader, load_dataset
    from vertebra.data.extra_fields import check_needs
    from vertebra.data.images.measure import with_measured_pixels
    from vertebra.engine.learnable import check_learnable
    from vertebra.models import build_model

    section = recipe.train
    plugin_files = read_plugin_files(recipe.plugins)
    if recipe.data.train is None:
        raise RecipeError(f"{recipe.source}: data.train is not set: there is nothing to train on")
    device = open_process(section.device)
    rank, world_size = distributed.rank(), distributed.world_size()
    if section.batch_size % world_size:
        raise RecipeError(
            f"{recipe.source}: train.batch_size is {section.batch_size}, which is not divisible by "
            f"{world_size} processes; it is the number of images over all processes"
        )
    seed_everything(recipe.seed)  # the same everywhere: all processes start with the same weights

    dataset = load_dataset(recipe.data.train, recipe.data.root, recipe.data.fields, recipe.data.image)
    recipe = with_measured_pixels(recipe, dataset)
    loader = build_train_loader(recipe, dataset, rank, world_size)
    model = build_model(recipe, metadata=dataset.metadata, pretrained=starting_weights)
    check_needs(model.modules(), dataset.metadata)
    check_inputs(model, dataset, training=True)
    check_methods(model, predicts=getattr(recipe.data, recipe.evaluate.split) is not None)
    notes = [*check_learnable(model, dataset), *_notes_on_facts(dataset.metadata)]
    if starting_weights and recipe.model.weights is not None:
        notes.append(start_from(model, recipe, recipe.model.weights))
    model.to(device)
    model.channels_last = use_channels_last(section.channels_last, device, training=True)
    model.train()
    plan = _plan(recipe, loader.steps_per_epoch)
    steps_of = partial(parse_period, steps_per_epoch=loader.steps_per_epoch, where="train.freeze")
    frozen = {
        name: None if None in until else max(steps_of(one) or 0 for one in until)
        for name, until in frozen_parameters(recipe, model).items()
    }
    if frozen:
        later = sum(until is not None for until in frozen.values())
        notes.append(f"train.freeze: {len(frozen) - later} parameters are never trained, {later} from a later step on")
    facts = known_facts(dataset.metadata)  # for parts nested in the following
    optimizer = build_optimizer(section, model, facts)
    schedule = section.schedule.build(**facts)
    with _told_of(section.schedule):
        schedule.check(plan.steps)
    hooks = [spec.build(**facts) for spec in section.hooks]
    check_needs(hooks, dataset.metadata)
    if section.compile:
        _compile(model)
    return Parts(
        model=model,
        optimizer=optimizer,
        batches=loader.batches,
        plan=plan,
        schedule=schedule,
        frozen=frozen,
        device=device,
        hooks=hooks,
        evaluate=_evaluation(recipe, model, dataset.metadata, device),
        recipe_text=recipe_with_copies(recipe, plugin_files),
        recipe_source=str(recipe.source),
        notes=notes,
        data_notes=[*dataset.metadata.get("notes", ()), *dataset.metadata.get("object_notes", ())],
        plugin_files=plugin_files,
    )


def _notes_on_facts(metadata: Metadata) -> list[str]:
    left_out = facts_to_keep(metadata)[1]
    if not left_out:
        return []
    return [f"checkpoints keep plain data only, not these facts of dataset {metadata.name}: {', '.join(left_out)}"]


def parse_period(value: int | str | None, steps_per_epoch: float, where: str) -> int | None:
    """A period as recipes write it, steps or `N epochs`, in steps (at least 1).

    Raises:
        RecipeError: neither of the two; names the key `where`.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*epochs?\s*", str(value))
    if match is None:
        raise RecipeError(
            f"{where} is {value!r}; expected a number of steps, or a text such as '1 epoch' or '0.5 epochs'"
        )
    return max(1, round(float(match[1]) * steps_per_epoch))


def frozen_parameters(recipe: Recipe, model: BaseModel) -> dict[str, list[int | str | None]]:
    """{name: periods until which it is frozen, None for ever} of the parameters in `train.freeze`.

    Those that are never trained get no gradient from now on, so that no optimizer has them.

    Raises:
        RecipeError: a pattern is for no parameter, or nothing is left to train.
    """
    try:
        found = frozen_by(recipe.train.freeze, model)
    except ValueError as err:
        raise RecipeError(f"{recipe.source}: {err}") from err
    for name, parameter in model.named_parameters():
        if None in found.get(name, ()):
            parameter.requires_grad_(False)
    return found


def build_optimizer(
    section: TrainSection, model: BaseModel, facts: dict[str, Any]
) -> torch.optim.Optimizer | SeveralOptimizers:
    """The optimizer of a recipe, or those of `train.optimizers`, for a model on its device.

    Raises:
        RecipeError: it does not fit the model.
    """
    if section.optimizers:
        if not owns_step(model):
            raise RecipeError(
                f"train.optimizers is for models that own their step, but {type(model).__name__} has no method "
                "training_step(batch, step).\n  Write train.optimizer"
            )
        return build_several(section.optimizers, model, facts)
    with _told_of(section.optimizer):
        return section.optimizer.build(**facts).build(model)


@contextlib.contextmanager
def _told_of(spec: ComponentSpec) -> Iterator[None]:
    """What a component finds wrong once it sees model or run is the recipe's mistake: names where it is written."""
    try:
        yield
    except ValueError as err:
        raise RecipeError(f"{spec.where}: {spec.kind} {spec.name}: {err}") from err


def _plan(recipe: Recipe, steps_per_epoch: float) -> Plan:
    section = recipe.train
    steps = section.steps
    if steps is None:
        assert section.epochs is not None  # TrainSection sets steps where neither is given
        steps = math.ceil(section.epochs * steps_per_epoch)
    return Plan(
        steps=steps,
        batch_size=section.batch_size,
        seed=recipe.seed,
        amp=section.amp,
        clip_gradients=section.clip_gradients,
        checkpoint_every=parse_period(section.checkpoint_every, steps_per_epoch, "train.checkpoint_every"),
        keep_checkpoints=section.keep_checkpoints,
        evaluate_every=parse_period(section.evaluate_every, steps_per_epoch, "train.evaluate_every"),
        log_every=section.log_every,
        find_unused_parameters=section.find_unused_parameters,
    )


def _evaluation(
    recipe: Recipe, trained: BaseModel, metadata: Metadata, device: torch.device
) -> Callable[[nn.Module, Path | None, bool], dict] | None:
    """How the run evaluates itself, or None where the recipe has no dataset to evaluate on.

    What is wrong with dataset, classes or arguments is reported here, not after the training.
    """
    if getattr(recipe.data, recipe.evaluate.split) is None:
        return None
    from vertebra.data import load_split
    from vertebra.data.match_classes import match_classes
    from vertebra.evaluation import evaluate
    from vertebra.evaluation.run import check_evaluation
    from vertebra.models.inference import with_inference

    with_inference(list, recipe.evaluate.inference, metadata)
    dataset = match_classes(load_split(recipe), metadata, f"the training set {metadata.name}")
    check_inputs(trained, dataset, training=False)
    check_evaluation(recipe, dataset)

    def evaluate_now(model: nn.Module, folder: Path | None, last: bool) -> dict[str, float | None]:
        report = recipe.evaluate.report and last
        return evaluate(model, recipe, dataset=dataset, output_dir=folder, device=device, report=report).metrics

    return evaluate_now


def _compile(model: BaseModel) -> None:
    """Compiles the tensor-only middle of the model; target assignment and decoding stay as they are."""
    for part in model.parts().values():
        if not isinstance(part, Loss):
            part.compile()
