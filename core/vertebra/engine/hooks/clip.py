"""ClipGradients: bounds the length of the gradient."""

from __future__ import annotations

from torch import nn

from vertebra.engine.hook import Hook, Training

__all__ = ["ClipGradients"]


class ClipGradients(Hook):
    """Scales all gradients together so that their L2 norm is at most `max_norm`; logs the norm before that.

    Source: Pascanu et al., arXiv:1211.5063, algorithm 1.
    """

    def __init__(self, max_norm: float) -> None:
        if max_norm <= 0:
            raise ValueError(f"clip_gradients must be above 0, got {max_norm}; omit it to disable clipping")
        self.max_norm = max_norm

    def after_backward(self, trainer: Training) -> None:
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        trainer.scalars["grad_norm"] = nn.utils.clip_grad_norm_(parameters, self.max_norm)
