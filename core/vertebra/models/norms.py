"""Normalization layers by name, and batch normalization whose statistics never change."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["FrozenBatchNorm2d", "LayerNorm2d", "NormName", "get_norm"]

NormName = Literal["", "none", "bn", "frozen_bn", "gn", "ln", "sync_bn"]

_GROUPS = 32  # Wu & He, "Group Normalization", arXiv:1803.08494, table 3


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics and fixed affine parameters: one scale and one shift per channel.

    All four vectors are buffers under batch normalization's own names, so that weights of either load into the other.
    Nothing here is trained; gradients pass through to the input.

    Args:
        num_features: channels.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)  # the identity at first, as in Detectron2

    @classmethod
    def from_batch_norm(cls, norm: nn.modules.batchnorm._BatchNorm) -> FrozenBatchNorm2d:
        """A frozen copy of a batch normalization, of its present statistics and parameters."""
        frozen = cls(norm.num_features, norm.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(frozen, name).copy_(getattr(norm, name).detach())
        return frozen.to(norm.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        scale, shift = scale_and_shift(self)
        shape = (1, -1, 1, 1)
        return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # batch normalization's counter has no meaning here
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization of feature maps: over the channels of each cell, as transformers have it over each token's.

    Args:
        num_channels: channels.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def scale_and_shift(norm: FrozenBatchNorm2d | nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """(C,) float32 each: with fixed statistics, normalized = x * scale + shift."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError(f"{norm} keeps no running statistics that could be fixed")
    scale = norm.weight.float() * (variance.float() + norm.eps).rsqrt()
    return scale, norm.bias.float() - mean.float() * scale


def get_norm(name: NormName, channels: int) -> nn.Module | None:
    """The layer that `name` stands for, or None for "" and "none".

    "bn", "sync_bn" (statistics over all processes), "frozen_bn" (statistics and parameters fixed), "gn" (32 groups),
    "ln" (over the channels of each cell).
    """
    if name in ("", "none"):
        return None
    if name == "gn":
        if channels % _GROUPS:
            raise ValueError(f"norm 'gn' needs a multiple of {_GROUPS} channels, got {channels}")
        return nn.GroupNorm(_GROUPS, channels)
    layers = {"bn": nn.BatchNorm2d, "frozen_bn": FrozenBatchNorm2d, "ln": LayerNorm2d, "sync_bn": nn.SyncBatchNorm}
    if name not in layers:
        raise ValueError(f"norm is {name!r}; it must be one of {', '.join(map(repr, [*layers, 'gn', 'none']))}")
    return layers[name](channels)
