"""What becomes of a loss per element."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["Reduction", "check_reduction", "reduce"]

Reduction = Literal["none", "sum", "mean"]


def check_reduction(name: str) -> str:
    if name not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {name!r}; it must be 'none', 'sum' or 'mean'")
    return name


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """The losses as they are, their sum, or their mean; the mean of no elements is a differentiable 0, not NaN."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / max(loss.numel(), 1)
