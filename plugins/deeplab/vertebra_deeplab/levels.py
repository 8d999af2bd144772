"""Which of the features a DeepLab head looks at, and how far its dilated convolutions reach there."""

from __future__ import annotations

from collections.abc import Sequence

from vertebra.models import ShapeSpec

__all__ = ["choose_level", "rates_at"]


def choose_level(head: str, input_shape: dict[str, ShapeSpec], name: str | None) -> str:
    """The feature of that name; None: the last, which is the deepest."""
    if not input_shape:
        raise ValueError(f"{head} needs at least one level in input_shape, got none")
    if name is None:
        return list(input_shape)[-1]
    if name not in input_shape:
        raise ValueError(
            f"{head}: in_feature is {name!r}, but the features are {', '.join(input_shape)}. "
            "The backbone's out_features must have it"
        )
    return name


def rates_at(stride: int, rates: Sequence[int] | None) -> tuple[int, ...]:
    """The given rates in cells; None: 6, 12, 18 at stride 16, and as many pixels at any other (12, 24, 36 at 8).

    Source: arXiv:1706.05587, section 3.3: "the rates are doubled when output stride = 8".
    """
    if rates is not None:
        return tuple(rates)
    return tuple(max(1, rate * 16 // stride) for rate in (6, 12, 18))
