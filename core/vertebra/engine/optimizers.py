"""Optimizers as components, and the parameter groups that they share.

A component holds the settings; `build(model)` makes the torch optimizer. The groups follow Detectron2's rules:
weights of norm layers have their own weight decay (0 by default), biases may have their own rate and decay,
and parameters with the same settings share one group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

__all__ = ["SGD", "AdamW", "OptimizerBuilder", "parameter_groups"]

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch, sync-batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
_FUSED_ON = ("cpu", "cuda")  # where torch.optim's fused kernels exist (torch >= 2.4)


class OptimizerBuilder:
    """Contract of the optimizers: settings in the constructor, the torch optimizer from `build`."""

    component_kind: ClassVar[str] = "optimizer"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer of the model's trainable parameters, which lie on their device already."""
        raise NotImplementedError


@dataclass(eq=False)
class SGD(OptimizerBuilder):
    """Stochastic gradient descent with momentum; the defaults are Detectron2's for RetinaNet at 16 images a step.

    Args:
        weight_decay_norm: weight decay of norm layers' weights and biases; None: `weight_decay`.
        weight_decay_bias: weight decay of all biases; None: like their layer's weights.
        bias_lr_factor: multiplies the rate of biases.
        backbone_lr_factor: multiplies the rate of everything in `model.backbone`.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    weight_decay_norm: float | None = 0.0
    weight_decay_bias: float | None = None
    bias_lr_factor: float = 1.0
    backbone_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups_of(model, self)
        fused = _can_fuse(groups)
        return torch.optim.SGD(groups, self.lr, self.momentum, nesterov=self.nesterov, fused=fused)


@dataclass(eq=False)
class AdamW(OptimizerBuilder):
    """Adam with decoupled weight decay. Source: Loshchilov, Hutter, arXiv:1711.05101.

    Args: `betas` and `eps` are torch's; the rest as in `SGD`.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    weight_decay_norm: float | None = 0.0
    weight_decay_bias: float | None = None
    bias_lr_factor: float = 1.0
    backbone_lr_factor: float = 1.0

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups_of(model, self)
        first, second = self.betas
        return torch.optim.AdamW(groups, self.lr, (first, second), self.eps, fused=_can_fuse(groups))


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float | None = 0.0,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    backbone_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """The trainable parameters in as few groups as their settings allow, in the order of the model.

    Returns:
        [{"params": [...], "lr": ..., "weight_decay": ...}, ...]; a shared parameter appears once.
    Raises:
        ValueError: the model has nothing to train.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, module in _trainable(model):
        rate, decay = lr, weight_decay
        if isinstance(module, _NORMS) and weight_decay_norm is not None:
            decay = weight_decay_norm
        if name.rpartition(".")[2] == "bias":
            rate *= bias_lr_factor
            decay = decay if weight_decay_bias is None else weight_decay_bias
        if name.startswith("backbone."):
            rate *= backbone_lr_factor
        groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise ValueError("the model has no trainable parameter: everything is frozen")
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def _groups_of(model: nn.Module, settings: SGD | AdamW) -> list[dict[str, Any]]:
    return parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        weight_decay_norm=settings.weight_decay_norm,
        weight_decay_bias=settings.weight_decay_bias,
        bias_lr_factor=settings.bias_lr_factor,
        backbone_lr_factor=settings.backbone_lr_factor,
    )


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Each trainable parameter once: its whole name, itself, the module that owns it."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{prefix}.{name}" if prefix else name, parameter, module


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    return all(p.device.type in _FUSED_ON and p.is_floating_point() for group in groups for p in group["params"])
