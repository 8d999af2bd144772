"""What went wrong in a training step, in terms of the recipe's parts: for parts that break their contract."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator

from torch import nn

from vertebra.config.component import where_written
from vertebra.errors import PluginError, RecipeError, VertebraError
from vertebra.models import Backbone, BaseModel, DetectionHead, Head, Neck
from vertebra.traces import frames_of

__all__ = ["check_all_used", "check_methods", "explained", "owns_step"]

_SHOWN = 6
_METHODS = {
    Backbone: ("forward(images)", "output_shape()"),
    Neck: ("forward(features)", "output_shape()"),
    Head: ("forward(features)", "losses(raw, batch)"),
    BaseModel: ("network(images)", "losses(raw, batch)"),
}
_CANDIDATES = "candidates(raw)"  # what a DetectionHead predicts from


def check_methods(model: BaseModel, *, predicts: bool) -> None:
    """Before the first step: does each part have the methods that a training calls?

    Args:
        predicts: the training evaluates, so heads have to predict too.
    Raises:
        PluginError: a method is missing, or a module keeps what checkpoints do not hold; names the part.
    """
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise PluginError(
                f"{_called(name, module)} has get_extra_state, which checkpoints do not hold: keep it in a buffer, "
                "self.register_buffer(name, tensor)"
            )
    for name, part in {"": model, **model.parts()}.items():
        kind = next((kind for kind in _METHODS if isinstance(part, kind)), None)
        if kind is None:
            continue
        task = name in (
            "",
            *(f"heads.{key}" for key in model.tasks),
        )  # what a head inside another model does is its own
        methods: tuple[str, ...] = _METHODS[kind] if task or kind is not Head else _METHODS[Head][:1]
        if part is model and owns_step(model):
            methods = ()
        predict = task and predicts and not getattr(part, "training_only", False)
        for method in (*methods, *((_predicting(part),) if predict else ())):
            contract = DetectionHead if method == _CANDIDATES else kind
            if not _has(part, method.partition("(")[0], contract):
                raise PluginError(f"{_called(name, part)} has no method {method}, which a training needs")


def _predicting(part: nn.Module) -> str:
    """The method that a prediction needs of it."""
    usual = isinstance(part, DetectionHead) and not _has(part, "predict", DetectionHead)
    return _CANDIDATES if usual else "predict(raw, batch)"


def _has(part: nn.Module, method: str, contract: type[nn.Module]) -> bool:
    """Whether it has a method of its own where the contract's only raises. A model may override `forward`."""
    names = (method, "compute") if method == "network" else (method,)
    names = (*names, "forward") if contract is BaseModel else names
    return any(getattr(type(part), name) is not getattr(contract, name) or name in vars(part) for name in names)


def owns_step(model: nn.Module) -> bool:
    """Whether it has a `training_step(batch, step)`."""
    return isinstance(model, BaseModel) and callable(getattr(model, "training_step", None))


def explained(err: Exception, model: nn.Module) -> Exception:
    """The error to raise instead: one that names the part and the remedy, or the same one with the part as a note."""
    if isinstance(err, VertebraError):
        return err
    parts = list(_parts(err, model))
    written = [(name, part) for name, part in parts if where_written(part, "")]
    where = _called(*(written or parts)[-1]) if parts else "the model"
    text = str(err)
    if isinstance(err, KeyError) and (levels := _levels(err)) is not None and err.args[0] not in levels:
        return PluginError(
            f"{where} uses a feature map {err.args[0]!r}, which does not exist.\n  Those that do: {', '.join(levels)}. "
            f"Used in {frames_of(err)[-1][1]}"
        )
    if isinstance(err, ValueError) and "more than 1 value per channel" in text:
        return RecipeError(
            f"{where}: the batch normalization {_called(*parts[-1])} sees a single value per channel: one image, and a "
            "feature map of one cell.\n  Use a train.batch_size of at least 2 per process, or a norm that does not "
            "depend on the batch (gn, ln, frozen_bn)"
        )
    if parts:
        err.__notes__ = [*getattr(err, "__notes__", ()), f"in {where}"]  # add_note, which Python 3.10 does not have
    return err


def check_all_used(parameters: list[tuple[str, nn.Parameter]], step: int) -> None:
    """After a backward pass of several processes, which average each gradient: do all parameters have one?

    Raises:
        RecipeError: some do not; names them.
    """
    unused = [name for name, parameter in parameters if parameter.requires_grad and parameter.grad is None]
    if unused:
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        raise RecipeError(
            f"step {step + 1} did not use {len(unused)} parameters, so their gradients cannot be averaged over the "
            f"processes: {', '.join(unused[:_SHOWN])}{more}.\n"
            "  If the model uses them in some steps only, set train.find_unused_parameters=true (slower); otherwise "
            "remove them, or freeze them: parameter.requires_grad_(False)"
        )


def _parts(err: Exception, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's modules whose methods were running, outermost first; the model itself is not one."""
    names = {id(module): name for name, module in model.named_modules() if module is not model}
    for frame, _ in traceback.walk_tb(err.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            yield names[id(owner)], owner


def _levels(err: Exception) -> list[str] | None:
    """Names of the feature maps, where the line that failed looks something up in `features`."""
    frame, line = list(traceback.walk_tb(err.__traceback__))[-1]
    features = frame.f_locals.get("features")
    source = linecache.getline(frame.f_code.co_filename, line)  # empty where the file is gone
    if not isinstance(features, dict) or (source and "features[" not in source):
        return None
    return [str(name) for name in features]


def _called(name: str, part: nn.Module) -> str:
    return f"{f'model.{name}' if name else 'model'} ({where_written(part, type(part).__name__)})"
