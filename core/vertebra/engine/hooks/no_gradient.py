"""StopWithoutGradient: end a run that does not learn anything at all."""

from __future__ import annotations

from torch import Tensor

from vertebra.engine.hook import Hook, Training
from vertebra.errors import RecipeError

__all__ = ["StopWithoutGradient"]


class StopWithoutGradient(Hook):
    """Ends a run in whose first `steps` steps, or in all of it, the gradient of every parameter is exactly 0.

    A batch without objects, or of ignored pixels alone, may have no gradient. It is looked at until there is one, which
    is mostly once: on a GPU looking makes the step wait. A resumed run has learned before.
    """

    def __init__(self, steps: int = 20) -> None:
        self.steps = steps
        self._looked = 0
        self._found = False

    def before_train(self, trainer: Training) -> None:
        self._found = trainer.step > 0

    def after_backward(self, trainer: Training) -> None:
        if self._found:
            return
        self._looked = trainer.step + 1
        self._found = any(_is_not_0(parameter.grad) for parameter in trainer.model.parameters())
        if self._looked == self.steps:
            self._check(trainer)

    def after_train(self, trainer: Training) -> None:
        self._check(trainer)

    def _check(self, trainer: Training) -> None:
        if not self._found and self._looked:
            losses = ", ".join(f"{name} {float(loss.detach()):.4g}" for name, loss in trainer.losses.items())
            raise RecipeError(
                f"nothing was learned in {self._looked} steps: the gradient of every parameter is 0 ({losses}).\n"
                "  Check that the loss weights are not all 0, that the batches have labels or objects, and that the "
                "losses depend on the model's outputs"
            )


def _is_not_0(gradient: Tensor | None) -> bool:
    return gradient is not None and (gradient.is_sparse or bool(gradient.any()))
