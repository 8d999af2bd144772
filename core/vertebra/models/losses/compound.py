"""Several losses added up."""

from __future__ import annotations

from torch import Tensor, nn

from vertebra.models.contracts import Loss

__all__ = ["CompoundLoss"]


class CompoundLoss(Loss):
    """The weighted sum of losses of the same arguments, such as cross entropy plus Dice.

    Args:
        losses: each called with the same two arguments; all give scalars, or all tensors of one shape.
        weights: a factor for each; None: all 1.
    """

    def __init__(self, losses: list[Loss], weights: list[float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("CompoundLoss needs at least one loss, got none")
        weights = [1.0] * len(losses) if weights is None else list(weights)
        if len(weights) != len(losses):
            raise ValueError(f"CompoundLoss: {len(weights)} weights for {len(losses)} losses")
        if not any(weights):
            raise ValueError(f"CompoundLoss: the weights {weights} are all 0: nothing is learned")
        self.losses = nn.ModuleList(losses)
        self.weights = weights

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return sum(weight * loss(predictions, targets) for weight, loss in zip(self.weights, self.losses, strict=True))
