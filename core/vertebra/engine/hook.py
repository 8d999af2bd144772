"""Hook: what a Training calls around its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Protocol

import torch

from vertebra.config.component import described, where_written
from vertebra.errors import PluginError

__all__ = ["Hook", "Training", "check_scalars"]

_TAKEN = ("step", "loss")  # numbers of every record


class Training(Protocol):
    """A training that runs, as hooks see it; `Trainer` is one.

    Attributes:
        step, max_steps: steps done, steps in all.
        folder: of the run.
        model, optimizer, scaler, device: what is trained, by what, where; the scaler is of fp16.
        batch, loss, losses: of the current step; unscaled.
        parts: everything that the training is made of.
        hooks: all hooks, in their order.
        scalars: further numbers for the next record, by name; tensors of one value count as numbers.
        is_main_process: whether this process writes files.
    """

    step: int
    max_steps: int
    folder: Any
    batch: Any
    losses: Any
    loss: Any
    scalars: dict[str, Any]
    parts: Any
    hooks: Any
    signals: Any
    scaler: Any
    plan: Any
    resumed_rng: Any
    data_seconds: Any
    evaluated_model: Any
    optimizer: Any

    @property
    def model(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def is_main_process(self) -> bool: ...

    def update_weights(self, optimizer: Any) -> None:
        """From scaled gradients to new weights, with the hooks' `after_backward` between."""

    def save_checkpoint(self) -> Any:
        """A checkpoint of this step."""

    def save_final(self) -> Any:
        """The weights at the end."""

    def write(self, record: dict[str, Any]) -> None:
        """Hand numbers to all hooks."""

    def stop(self, reason: str) -> None:
        """End after this step."""

    def interruptible(self) -> Any:
        """A context in which a signal ends the training at once."""


class Hook:
    """One optional thing in a training. Override what you need; all methods here do nothing.

    A hook owns its state: what must survive a kill goes into `state_dict`, as plain data and tensors.
    In several processes every hook runs in each of them; write files only where `trainer.is_main_process`.
    """

    component_kind: ClassVar[str] = "hook"
    state_like_model: ClassVar[Sequence[str]] = ()
    """Keys of `state_dict` whose values have the names and shapes of the model's, such as an average's: checked when a
    training is resumed."""

    def before_train(self, trainer: Training) -> None:
        """Once, after a resumed state was loaded."""

    def before_step(self, trainer: Training) -> None:
        """`trainer.step` steps are done; the next batch is not fetched yet."""

    def before_forward(self, trainer: Training) -> None:
        """`trainer.batch` is there, the model has not seen it; a hook may put another in its place."""

    def after_backward(self, trainer: Training) -> None:
        """`trainer.losses` and the gradients are there (unscaled also in fp16), the weights unchanged. In a step that
        the model owns it is called for each `step.minimize`, with its optimizer as `trainer.optimizer`."""

    def after_step(self, trainer: Training) -> None:
        """The weights changed; `trainer.step` counts this step already."""

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        """Numbers to put down: {"step": n, "loss": ..., ...} at log intervals, {"step": n, "bbox/AP": ...} after an
        evaluation. The same in all processes."""

    def before_checkpoint(self, trainer: Training) -> None:
        """A checkpoint is about to be written; raise here if it must not be."""

    def after_train(self, trainer: Training) -> None:
        """Once, after the last step; not after an error or an interruption."""

    def close(self, trainer: Training) -> None:
        """Once at the very end, whatever happened: let go of files, handlers, the terminal."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly; numbers, strings, tensors, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned; called before `before_train`."""


def check_scalars(scalars: Any, hook: Hook) -> None:
    """After a call of a hook: `trainer.scalars` holds numbers by name.

    Raises:
        PluginError: something else; names the hook, which has just set it, and the key.
    """
    where = f"{where_written(hook, f'hook {type(hook).__name__}')}: trainer.scalars"
    if not isinstance(scalars, Mapping):
        raise PluginError(
            f"{where} is {described(scalars)}, expected a dict.\n  Set a number: trainer.scalars[name] = 0.5"
        )
    for name, value in scalars.items():
        shape = getattr(value, "shape", None)
        if not (isinstance(value, Real) or (shape is not None and math.prod(shape) == 1)):
            raise PluginError(
                f"{where}[{name!r}] is {described(value)}, expected a number or a tensor of one value.\n"
                "  The log has means over steps; log text by logging.getLogger(__name__).info(...)"
            )
        if not isinstance(name, str) or name in _TAKEN:
            raise PluginError(f"{where} has the name {name!r}, expected a text other than {' and '.join(_TAKEN)}")
