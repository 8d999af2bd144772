"""Which of the features a DeepLab head looks at, and how far its dilated convolutions reach there."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.models import ShapeSpec, chosen_level

__all__ = ["choose_level", "rates_at"]


def choose_level(head: str, input_shape: dict[str, ShapeSpec], name: str | None) -> str:
    """The feature of that name; None: the last, which is the deepest."""
    return chosen_level(head, input_shape, next(reversed(input_shape), "") if name is None else name)


def rates_at(stride: int, rates: Sequence[int] | None) -> tuple[int, ...]:
    """The given rates in cells; None: 6, 12, 18 at stride 16, and as many pixels at any other (12, 24, 36 at 8).

    Source: arXiv:1706.05587, section 3.3: "the rates are doubled when output stride = 8".
    """
    if rates is not None:
        return tuple(rates)
    return tuple(max(1, rate * 16 // stride) for rate in (6, 12, 18))
