"""What becomes of a loss per element."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

__all__ = ["Reduction", "check_reduction", "check_unreduced", "reduce"]

Reduction = Literal["none", "sum", "mean"]


def check_reduction(name: str) -> str:
    if name not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {name!r}; it must be 'none', 'sum' or 'mean'")
    return name


def check_unreduced(who: str, *losses: Any) -> None:
    """Whether these give a loss for each element, for a part that sums or averages them itself; None is skipped.

    Raises:
        ValueError: one has another reduction; starts with `who`.
    """
    for loss in losses:
        reduction = getattr(loss, "reduction", "none")
        if reduction != "none":
            raise ValueError(
                f"{who} sums or averages its losses itself, so {type(loss).__name__} needs reduction 'none', not "
                f"{reduction!r}"
            )


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """The losses as they are, their sum, or their mean; the mean of no elements is a differentiable 0, not NaN."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / max(loss.numel(), 1)
