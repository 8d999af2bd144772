"""fuse_conv_bn: batch norms of a trained model folded into the convolutions before them, for inference."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard, get_args

import torch
from torch import nn

from vertebra.models.convolution import ConvNorm
from vertebra.models.norms import FrozenBatchNorm2d, scale_and_shift

__all__ = ["fold_into", "fold_neighbours", "fuse_conv_bn"]

_Norm = nn.BatchNorm2d | nn.SyncBatchNorm | FrozenBatchNorm2d


@torch.no_grad()
def fuse_conv_bn(model: nn.Module) -> nn.Module:
    """Folds, in place, every batch norm that directly follows a convolution; the outputs stay the same up to rounding.

    Found are `ConvNorm`, and a `Conv2d` with its norm as the next entry of an `nn.Sequential`; any other module says
    for itself what it folds, in a method `fold_norm()`, which is called after that of its parts. What is not found
    stays as it is. The model can neither be trained any more nor loaded from a state dict.

    Returns:
        The model, in eval mode.
    """
    model.eval()
    for module in reversed(list(model.modules())):  # parts before what holds them
        fold_norm = getattr(module, "fold_norm", None)
        if fold_norm is not None:
            fold_norm()
        elif isinstance(module, ConvNorm) and _can_fold(module.norm):
            fold_into(module, module.norm)
            module.norm = None
        elif type(module).forward is nn.Sequential.forward:
            fold_neighbours(module)
    return model


def fold_neighbours(layers: nn.Module) -> None:
    """Folds each norm among the children into the `Conv2d` right before it; for children that run in their order."""
    children = list(layers.named_children())
    for (_, conv), (name, norm) in pairwise(children):
        if type(conv) is nn.Conv2d and _can_fold(norm):
            fold_into(conv, norm)
            setattr(layers, name, nn.Identity())


@torch.no_grad()
def fold_into(conv: nn.Conv2d, norm: _Norm) -> None:
    """The norm's scale and shift into the convolution's weight and bias."""
    scale, shift = scale_and_shift(norm)
    bias = shift if conv.bias is None else shift + conv.bias.float() * scale
    conv.weight.copy_(conv.weight.float() * scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    conv.weight.requires_grad_(False)


def _can_fold(norm: nn.Module | None) -> TypeGuard[_Norm]:
    return type(norm) in get_args(_Norm)
