"""Weights for RGB, for images of other numbers of channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.errors import RecipeError

__all__ = ["adapted_state", "take_channels"]


def take_channels(backbone: nn.Module, channels: int) -> None:
    """Makes the first convolution of a backbone for RGB take images of this many channels.

    Its weights of red, green and blue are repeated over the channels in turn, times 3 / channels, so that the sum over
    equal channels stays what it was; for one channel they are added up. (The rule of timm, `adapt_input_conv`.)

    Raises:
        RecipeError: the backbone has no convolution of 3 channels.
    """
    if channels == 3:
        return
    first = next((one for one in backbone.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or (first.in_channels != 3 and first.in_channels != channels) or first.groups != 1:
        raise RecipeError(
            f"{where_written(backbone, type(backbone).__name__)}: its first convolution does not take 3 channels, so "
            f"it cannot be made to take {channels}.\n  Use another backbone, or images of 3 channels (data.image)"
        )
    if first.in_channels == 3:
        first.weight = nn.Parameter(_repeated(first.weight.detach(), channels), first.weight.requires_grad)
        first.in_channels = channels


def adapted_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights to load, those of an RGB model's first convolution adapted where the module's takes other channels."""
    name = next((name for name, tensor in own.items() if tensor.dim() == 4), None)
    if name is None or name not in state or state[name].dim() != 4:
        return state
    wanted, given = own[name].shape, state[name].shape
    same_but_channels = (wanted[0], *wanted[2:]) == (given[0], *given[2:])
    if wanted[1] == given[1] or given[1] != 3 or not same_but_channels:
        return state
    return {**state, name: _repeated(state[name], wanted[1])}


def _repeated(weight: Tensor, channels: int) -> Tensor:
    """(O, 3, kh, kw) to (O, channels, kh, kw)."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return (weight[:, torch.arange(channels) % 3] * (3 / channels)).contiguous()
