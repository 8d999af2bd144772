"""Weights for RGB, for images of other numbers of channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.errors import RecipeError

__all__ = ["adapted_state", "take_channels"]

_SEES_IMAGE = "_sees_image_of_other_channels"  # attribute of the convolutions that were changed


def take_channels(backbone: nn.Module, channels: int) -> None:
    """Makes the convolutions of a backbone that see an RGB image take images of this many channels.

    They are those of 3 input channels (a stem may have several side by side). Their weights of red, green and blue are
    repeated over the channels in turn, times 3 / channels, so that answers stay of about the same size; for one channel
    they are added up, so that a gray image gets the same answer as before. (The rule of timm, `adapt_input_conv`.)

    Raises:
        RecipeError: the backbone has no convolution of 3 channels.
    """
    if channels == 3:
        return
    convolutions = [one for one in backbone.modules() if isinstance(one, nn.Conv2d)]
    seeing = [one for one in convolutions if one.in_channels == 3 and one.groups == 1]
    if not seeing and not (convolutions and convolutions[0].in_channels == channels):
        raise RecipeError(
            f"{where_written(backbone, type(backbone).__name__)}: it has no convolution of 3 channels, so it cannot be "
            f"made to take {channels}.\n  Use another backbone, or images of 3 channels (data.image)"
        )
    for one in seeing:
        one.weight = nn.Parameter(_repeated(one.weight.detach(), channels), one.weight.requires_grad)
        one.in_channels = channels
        setattr(one, _SEES_IMAGE, True)


def adapted_state(module: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights to load, those of an RGB model adapted where `take_channels` has changed the module's convolutions; a
    module with `named_as_here(prefix, state)`, which wraps another one, renames those of the wrapped one alone."""
    for name, one in module.named_modules():
        if hasattr(one, "named_as_here"):
            state = one.named_as_here(f"{name}." if name else "", state)
    adapted = {}
    for name, one in module.named_modules():
        key = f"{name}.weight" if name else "weight"
        if getattr(one, _SEES_IMAGE, False) and key in state and state[key].dim() == 4 and state[key].shape[1] == 3:
            adapted[key] = _repeated(state[key], one.weight.shape[1])
    return {**state, **adapted} if adapted else state


def _repeated(weight: Tensor, channels: int) -> Tensor:
    """(O, 3, kh, kw) to (O, channels, kh, kw)."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return (weight[:, torch.arange(channels) % 3] * (3 / channels)).contiguous()
