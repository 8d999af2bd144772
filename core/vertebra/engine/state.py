"""The state of a training as a checkpoint's dict, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from vertebra.config.component import where_written
from vertebra.engine.checkpoint import FORMAT, CheckpointStore, DamagedCheckpoint, Found, check_plain
from vertebra.engine.dataset_facts import check_same_classes, facts_in, facts_to_keep
from vertebra.engine.environment import version
from vertebra.engine.plugin_files import changes_since
from vertebra.engine.rng import preserved_rng, rng_state, set_rng_state
from vertebra.engine.run_folder import recipe_changes
from vertebra.engine.several_optimizers import SeveralOptimizers
from vertebra.errors import CheckpointError, PluginError, VertebraError
from vertebra.runtime import distributed
from vertebra.traces import frames_of

if TYPE_CHECKING:
    from torch import nn

    from vertebra.engine.hook import Hook, Training

__all__ = ["checkpoint_of", "hook_states", "resume_from", "resume_newest", "weights_of"]

_SEVERAL = "several"
_LIKE_THE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg")
"""What torch's own optimizers keep in the shape of each parameter; others may keep something else by that name."""
_ALWAYS_KEPT = {"Adam": ("step", "exp_avg", "exp_avg_sq"), "AdamW": ("step", "exp_avg", "exp_avg_sq")}


def checkpoint_of(trainer: Training) -> dict[str, Any]:
    """All that goes into a checkpoint. Every process must call it: each has its own random state."""
    return {
        "model": dict(trainer.model.state_dict()),
        "optimizer": _optimizer_state(trainer.optimizer, trainer.model),
        "scaler": trainer.scaler.state_dict(),
        "schedule": {"total_steps": trainer.max_steps},
        "step": trainer.step,
        "rng": distributed.gather_objects(rng_state()),
        "buffers": _buffers_of_each(trainer.model),
        "hooks": hook_states(trainer.hooks),
        **_origin(trainer),
    }


def hook_states(hooks: Sequence[Hook]) -> dict[str, Any]:
    """What the hooks' `state_dict` give, by name; all of it can be read again.

    Raises:
        PluginError: one gives nothing, or what a checkpoint cannot hold; names the hook.
    """
    states: dict[str, Any] = {}
    for name, hook in _named(hooks).items():
        where = f"{where_written(hook, f'hook {type(hook).__name__}')}: state_dict()"
        states[name] = hook.state_dict()
        if states[name] is None:
            raise PluginError(
                f"{where} returned None, expected what load_state_dict needs, such as {{'count': 3}}, or {{}}"
            )
        try:
            check_plain(states[name], where)
        except CheckpointError as err:
            raise PluginError(f"{err}.\n  Convert it, and back in load_state_dict") from err
    return states


def weights_of(trainer: Training) -> dict[str, Any]:
    """The content of final.pth."""
    return {
        "model": dict(trainer.evaluated_model.state_dict()),
        "step": trainer.step,
        **_origin(trainer),
    }


def _origin(trainer: Training) -> dict[str, Any]:
    """Where the weights come from: recipe, SHA-256 of the local plugins by name of the copy, facts of the dataset."""
    return {
        "recipe": trainer.parts.recipe_text,
        "plugins": {file.name: file.sha256 for file in trainer.parts.plugin_files},
        "metadata": facts_to_keep(getattr(trainer.model, "metadata", None))[0],
        "vertebra": version(),
        "format": FORMAT,
    }


def resume_newest(trainer: Training, found: Found, checkpoints: CheckpointStore) -> list[str]:
    """As `resume_from`; where the checkpoint proves damaged, from the newest older one that is whole."""
    refused: dict[Path, str] = {}
    while True:
        try:
            return resume_from(trainer, found)
        except DamagedCheckpoint as err:
            refused[found.path] = str(err)
            older = checkpoints.newest(refused)
            assert older is not None  # with none left, it raises
            found = older


def resume_from(trainer: Training, found: Found) -> list[str]:
    """Puts a checkpoint's state into a trainer that was just built.

    Returns:
        What the user should know: where it goes on, what was skipped, what changed.
    Raises:
        CheckpointError: classes, model or optimizer do not fit the checkpoint's.
        DamagedCheckpoint: a part of it is not what such a part writes.
    """
    path, content, notes = found
    step = content["step"]
    notes = [*notes, f"resuming {path} at step {step} of {trainer.max_steps}"]
    with _damaged(path, "recipe"):
        changes = recipe_changes(content.get("recipe", ""), trainer.parts.recipe_text)
    if changes:
        notes.append("the recipe differs from that of the checkpoint; from here on:\n  " + "\n  ".join(changes))
    recorded = content.get("plugins") or {}
    edited = [f"local plugin {line}" for line in changes_since(recorded, trainer.parts.plugin_files)]
    notes += edited
    try:
        facts_in(content, str(path))
    except CheckpointError as err:
        raise DamagedCheckpoint(str(err)) from err
    check_same_classes(content, getattr(trainer.model, "metadata", None), path)
    _load_model(trainer.model, content["model"], path, [*changes, *edited])
    with _damaged(path, "optimizer"):
        _load_optimizer(trainer.optimizer, trainer.model, content["optimizer"], path)
    if trainer.scaler.is_enabled() and content.get("scaler"):
        with _damaged(path, "scaler"):
            _check_alike(trainer.scaler.state_dict(), content["scaler"], "scaler")
            trainer.scaler.load_state_dict(content["scaler"])
    trainer.step = step
    with _damaged(path, "hooks"):
        notes += _load_hooks(trainer.hooks, content["hooks"], content["model"])
    states = content["rng"]
    if len(states) == distributed.world_size():
        trainer.resumed_rng = states[distributed.rank()]
        with _damaged(path, "rng"), preserved_rng():
            set_rng_state(trainer.resumed_rng)
        with _damaged(path, "buffers"):
            _load_buffers(trainer.model, content.get("buffers") or [])
    else:
        notes.append(
            f"the checkpoint was written by {len(states)} processes, this run has {distributed.world_size()}: random "
            "states and each process's own statistics are not restored, so the run continues, but not exactly"
        )
    return notes


def _load_model(model: nn.Module, saved: dict[str, torch.Tensor], path: Any, changes: list[str]) -> None:
    own = model.state_dict()
    problems = [f"missing in the checkpoint: {name}" for name in own if name not in saved]
    problems += [f"not in this model: {name}" for name in saved if name not in own]
    problems += [
        f"{name}: {tuple(saved[name].shape)} in the checkpoint, {tuple(own[name].shape)} in this model"
        for name in own
        if name in saved and saved[name].shape != own[name].shape
    ]
    if problems:
        kind = CheckpointError if changes else DamagedCheckpoint  # with nothing changed, an older one may fit
        raise kind(
            f"{path}: does not fit this recipe's model:\n  "
            + _shorten(problems)
            + "\nChanged in the recipe since:\n  "
            + _shorten([change for change in changes if change.startswith(("model.", "data."))] or ["nothing"])
            + "\nResume with the run's own recipe.yaml, or start a new run with --output"
        )
    for name, value in own.items():
        if saved[name].is_floating_point() != value.is_floating_point():
            raise DamagedCheckpoint(f"{path}: {name} is {saved[name].dtype}, expected {value.dtype}")
    model.load_state_dict(saved)


def _buffers_of_each(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """By rank: running statistics and the like, which each of several processes has of its own."""
    if distributed.world_size() == 1:
        return []
    names = model.state_dict().keys()
    own = {name: value.detach().cpu() for name, value in model.named_buffers() if name in names}
    everyone = distributed.gather_objects(own)
    differ = [name for name in own if any(not torch.equal(own[name], one[name]) for one in everyone)]
    differ = sorted(set().union(*distributed.gather_objects(differ)))
    return [{name: one[name] for name in differ} for one in everyone]


def _load_buffers(model: nn.Module, saved: list[dict[str, torch.Tensor]]) -> None:
    if len(saved) == distributed.world_size():
        own = dict(model.named_buffers())
        with torch.no_grad():
            for name, value in saved[distributed.rank()].items():
                own[name].copy_(value)


def _optimizer_state(optimizer: Any, model: nn.Module) -> dict[str, Any]:
    """torch's state dict plus the parameters' names, so that a regrouping cannot mix them up; of several, one each."""
    if isinstance(optimizer, SeveralOptimizers):
        each = {name: _optimizer_state(one, model) for name, one in optimizer.optimizers.items()}
        return {"type": _SEVERAL, "optimizers": each}
    return {**optimizer.state_dict(), "type": type(optimizer).__name__, "names": _names(optimizer, model)}


def _load_optimizer(optimizer: Any, model: nn.Module, saved: dict[str, Any], path: Any) -> None:
    """Takes over each parameter's state by its name; rates and other settings stay those of the recipe."""
    own, there = (set(getattr(one, "optimizers", ())) for one in (optimizer, SimpleNamespace(**saved)))
    if own != there:
        was, now = (", ".join(sorted(names)) or "one optimizer without a name" for names in (there, own))
        raise CheckpointError(
            f"{path}: was written with other optimizers: {was}; the recipe has: {now}.\n"
            "  Resume with the same optimizers; to start anew from these weights set model.weights in a new run"
        )
    if isinstance(optimizer, SeveralOptimizers):
        for name, one in optimizer.optimizers.items():
            _load_optimizer(one, model, saved["optimizers"][name], path)
        return
    kind = type(optimizer).__name__
    count = sum(len(group["params"]) for group in saved["param_groups"])
    if not isinstance(saved["type"], str) or len(set(saved["names"])) != count or len(saved["names"]) != count:
        raise ValueError(f"{len(set(saved['names']))} names for {count} parameters of {saved['type']!r}")
    if saved["type"] != kind:
        raise CheckpointError(
            f"{path}: was written with the optimizer {saved['type']}, the recipe says {kind}.\n"
            "  Resume with the same optimizer; to start anew from these weights set model.weights in a new run"
        )
    state_of = {name: saved["state"].get(index) for index, name in enumerate(saved["names"])}
    current = optimizer.state_dict()
    names = _names(optimizer, model)
    unknown = [name for name in names if name not in state_of]
    if unknown:
        raise CheckpointError(
            f"{path}: the optimizer's state has no entry for parameters that are trained now:\n  {_shorten(unknown)}\n"
            "  Was more of the model frozen when it was written? Resume with the run's own recipe.yaml"
        )
    state = {index: state_of[name] for index, name in enumerate(names) if state_of[name] is not None}
    if type(optimizer).__module__.startswith("torch.optim"):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        _check_kept(state, parameters, names, _ALWAYS_KEPT.get(kind, ()))
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})
    _lay_out_like_parameters(optimizer)


def _check_kept(
    state: dict[int, Any], parameters: list[torch.Tensor], names: list[str], needed: tuple[str, ...]
) -> None:
    """Raises ValueError for what one of torch's optimizers would not have kept of a parameter."""
    for index, kept in state.items():
        missing = [key for key in needed if kept.get(key) is None] if kept else []
        if missing:
            raise ValueError(f"there is no {missing[0]} of {names[index]}")
        for key, value in kept.items():
            if key in _LIKE_THE_PARAMETER and value is not None:
                _check_alike(parameters[index], value, f"{key} of {names[index]}")
            elif key == "step" and torch.as_tensor(value).numel() != 1:
                raise ValueError(f"step of {names[index]} is not one number")


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Fused optimizers pair values by their place in memory, and a checkpoint may be of another memory layout."""
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                kept[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Names of the optimizer's parameters in the order of its state dict's indices."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    return [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def _named(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """{class name: hook}; the second of a class is `Name#2`, and so on."""
    named: dict[str, Hook] = {}
    for hook in hooks:
        base = name = type(hook).__name__
        number = 1
        while name in named:
            number += 1
            name = f"{base}#{number}"
        named[name] = hook
    return named


def _load_hooks(hooks: list[Hook], states: dict[str, Any], model: dict[str, Any]) -> list[str]:
    notes = []
    named = _named(hooks)
    for name, hook in named.items():
        if name in states:
            _check_state(hook, states[name], model, name)
            hook.load_state_dict(states[name])
        else:
            notes.append(f"the hook {name} is new in this run and starts without a state")
    gone = [name for name, state in states.items() if state and name not in named]
    if gone:
        notes.append(f"hooks of the checkpoint that this run does not have; their state is ignored: {', '.join(gone)}")
    return notes


@contextlib.contextmanager
def _damaged(path: Path, part: str) -> Iterator[None]:
    """What a part raises about its state means that the state is not one that it wrote."""
    try:
        yield
    except VertebraError:  # in words of its own
        raise
    except Exception as err:  # a foreign type makes them raise nearly anything
        cause = (str(err).strip().splitlines() or ["no message"])[0]
        raise DamagedCheckpoint(
            f"{path}: its entry {part} cannot be restored: {type(err).__name__}: {cause[:300]}\n"
            f"  in {frames_of(err)[-1][1]}.\n"
            "  Was it written or changed by another program, or by another version of a plugin?"
        ) from err


def _check_state(hook: Hook, saved: Any, model: dict[str, Any], name: str) -> None:
    for key in hook.state_like_model:
        if not isinstance(saved[key], dict) or saved[key].keys() != model.keys():
            raise ValueError(f"{name}[{key!r}] does not have the model's names")
        _check_alike(model, saved[key], f"{name}[{key!r}]")


def _check_alike(own: Any, saved: Any, where: str) -> None:
    """Raises ValueError where a value differs in its type, or a tensor in its shape, from the one that a part has now.

    None stands for a value that is not known yet, and goes with any other.
    """
    if own is None or saved is None:
        return
    kinds: tuple[Any, ...] = (dict, (list, tuple), torch.Tensor, str, (int, float))
    kind: Any = next((kind for kind in kinds if isinstance(own, kind)), object)
    if not isinstance(saved, kind):
        raise ValueError(f"{where} is of type {type(saved).__name__}, expected {type(own).__name__}")
    if kind is dict:
        for key in own.keys() & saved.keys():
            _check_alike(own[key], saved[key], f"{where}[{key!r}]")
    elif kind is torch.Tensor:
        if saved.shape != own.shape:
            raise ValueError(f"{where} has shape {tuple(saved.shape)}, expected {tuple(own.shape)}")
        if saved.layout != torch.strided or saved.is_meta or saved.is_complex() != own.is_complex():
            raise ValueError(f"{where} holds other numbers ({saved.dtype}, {saved.layout}, {saved.device})")


def _shorten(lines: list[str], most: int = 12) -> str:
    rest = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n  ".join([*lines[:most], *rest])
