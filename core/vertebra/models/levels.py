"""The levels that a head or neck uses, checked: which there are, in which order, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from vertebra.models.contracts import ShapeSpec

__all__ = ["chosen_level", "finest_first", "same_channels"]


def finest_first(
    who: str,
    input_shape: Mapping[str, ShapeSpec],
    wanted: Sequence[str] | None = None,
    *,
    argument: str = "in_features",
    doubling: bool = False,
) -> list[str]:
    """Names of the levels to use, finest first.

    Args:
        who: the class that uses them, for the message.
        wanted: names of levels, in any order. None: all.
        argument: the class's argument that `wanted` comes from.
        doubling: each must have twice the stride of the one before.
    Raises:
        ValueError: there are none, some are unknown, or the strides do not double.
    """
    names = list(input_shape) if wanted is None else list(wanted)
    _check_known(who, input_shape, names, argument)
    names.sort(key=lambda name: input_shape[name].stride)
    strides = [input_shape[name].stride for name in names]
    if doubling and any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        plain = ". Of a plain vision transformer's last map, neck SimpleFeaturePyramid makes levels"
        raise ValueError(
            f"{who}: the strides of {', '.join(names)} are {strides}; each must be twice the one before. Choose the "
            f"levels by {argument}, or by the backbone's out_features{plain if len(set(strides)) == 1 else ''}"
        )
    return names


def chosen_level(who: str, input_shape: Mapping[str, ShapeSpec], name: str, argument: str = "in_feature") -> str:
    """That name, of one of the levels.

    Raises:
        ValueError: no level has it.
    """
    _check_known(who, input_shape, [name], argument)
    return name


def same_channels(who: str, input_shape: Mapping[str, ShapeSpec], names: Sequence[str]) -> int:
    """The number of channels of these levels, for layers that the levels share.

    Raises:
        ValueError: the levels differ.
    """
    channels = {name: input_shape[name].channels for name in names}
    if len(set(channels.values())) != 1:
        raise ValueError(
            f"{who} shares its layers between its levels, so all need the same number of channels, got {channels}. "
            "Put a neck (FPN) between the backbone and the head, or choose one level"
        )
    return next(iter(channels.values()))


def _check_known(who: str, input_shape: Mapping[str, ShapeSpec], names: Sequence[str], argument: str) -> None:
    there = ", ".join(input_shape)
    if not there:
        raise ValueError(f"{who} needs at least one level in input_shape, got none")
    unknown = [name for name in names if name not in input_shape]
    if unknown or not names:
        wrong = f"names {', '.join(map(repr, unknown))}" if unknown else "is empty"
        raise ValueError(
            f"{who}: {argument} {wrong}, but the features are {there}. Choose among these, or add to the backbone's "
            "out_features"
        )
