"""Optimizers as components: a component holds the settings, `build(model)` makes the torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from vertebra.engine.param_groups import ParameterGroup, parameter_groups

__all__ = ["SGD", "AdamW", "OptimizerBuilder"]

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
        backbone_lr_factor: multiplies the rate of everything in backbones.
        groups: parameters that have another rate or weight decay, by name, depth or kind: see `ParameterGroup`.
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    weight_decay_norm: float | None = 0.0
    weight_decay_bias: float | None = None
    bias_lr_factor: float = 1.0
    backbone_lr_factor: float = 1.0
    groups: Sequence[ParameterGroup] = ()

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups_of(model, self)
        fused = _can_fuse(groups)
        optimizer = torch.optim.SGD(groups, self.lr, self.momentum, nesterov=self.nesterov, fused=fused)
        if fused and self.momentum:
            optimizer.register_step_pre_hook(_complete_momentum)
        return optimizer


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
    groups: Sequence[ParameterGroup] = ()

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = _groups_of(model, self)
        first, second = self.betas
        return torch.optim.AdamW(groups, self.lr, (first, second), self.eps, fused=_can_fuse(groups))


def _groups_of(model: nn.Module, settings: SGD | AdamW) -> list[dict[str, Any]]:
    return parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        weight_decay_norm=settings.weight_decay_norm,
        weight_decay_bias=settings.weight_decay_bias,
        bias_lr_factor=settings.bias_lr_factor,
        backbone_lr_factor=settings.backbone_lr_factor,
        groups=settings.groups,
    )


def _complete_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Parameters that have a gradient for the first time after others of their group (unused or frozen before) start
    with a momentum of 0, as without fusing; torch's fused SGD takes a group only with all of it or with nothing."""
    for group in optimizer.param_groups:
        moving = [one for one in group["params"] if one.grad is not None]
        new = [one for one in moving if optimizer.state[one].get("momentum_buffer") is None]
        for one in new if len(new) < len(moving) else ():
            optimizer.state[one]["momentum_buffer"] = torch.zeros_like(one)


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    return all(p.device.type in _FUSED_ON and p.is_floating_point() for group in groups for p in group["params"])
