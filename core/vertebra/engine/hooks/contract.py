"""Hook: what a Trainer calls around its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from vertebra.engine.trainer import Trainer

__all__ = ["Hook"]


class Hook:
    """One optional thing in a training. Override what you need; all methods here do nothing.

    A hook owns its state: what must survive a kill goes into `state_dict`, as plain data and tensors.
    In several processes every hook runs in each of them; write files only where `trainer.is_main_process`.
    """

    component_kind: ClassVar[str] = "hook"
    state_like_model: ClassVar[Sequence[str]] = ()
    """Keys of `state_dict` whose values have the names and shapes of the model's, such as an average's: checked when a
    training is resumed."""

    def before_train(self, trainer: Trainer) -> None:
        """Once, after a resumed state was loaded."""

    def before_step(self, trainer: Trainer) -> None:
        """`trainer.step` steps are done; the next batch is not fetched yet."""

    def before_forward(self, trainer: Trainer) -> None:
        """`trainer.batch` is there, the model has not seen it; a hook may put another in its place."""

    def after_backward(self, trainer: Trainer) -> None:
        """`trainer.losses` and the gradients are there (unscaled also in fp16), the weights unchanged."""

    def after_step(self, trainer: Trainer) -> None:
        """The weights changed; `trainer.step` counts this step already."""

    def write(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Numbers to put down: {"step": n, "loss": ..., ...} at log intervals, {"step": n, "bbox/AP": ...} after an
        evaluation. The same in all processes."""

    def before_checkpoint(self, trainer: Trainer) -> None:
        """A checkpoint is about to be written; raise here if it must not be."""

    def after_train(self, trainer: Trainer) -> None:
        """Once, after the last step; not after an error or an interruption."""

    def close(self, trainer: Trainer) -> None:
        """Once at the very end, whatever happened: let go of files, handlers, the terminal."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly; numbers, strings, tensors, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned; called before `before_train`."""
