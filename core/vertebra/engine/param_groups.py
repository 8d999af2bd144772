"""Which parameters an optimizer treats how: rates and weight decay by kind, by name and by depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import nn

from vertebra.config.section import Section
from vertebra.models.parameter_layers import NORMS, parameter_layers
from vertebra_eval.nearest import nearest

__all__ = ["NormAndBias", "ParameterGroup", "matching", "parameter_groups"]


def _faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("lr_factor", "weight_decay"):
        value = values.get(name)
        if value is not None and not 0 <= value < math.inf:
            yield name, f"is {value:g}, expected a number of 0 or more"


@dataclass(frozen=True, kw_only=True)
class NormAndBias(Section):
    """What norm layers and all biases have instead."""

    brief: ClassVar[bool] = True
    lr_factor: float | None = None
    weight_decay: float | None = None

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _faults(values)


@dataclass(frozen=True, kw_only=True)
class ParameterGroup(Section):
    """An entry of `groups`: some parameters, and what they have instead.

    All entries that a parameter is in count, in their order, after the optimizer's other arguments: factors of the rate
    are multiplied, of weight decays the last one holds.

    Args:
        match: patterns of names, with * for anything, dots included; a module's name stands for all in it. None: all
            parameters.
        lr_factor: multiplies the rate.
        weight_decay: in the place of the optimizer's.
        layer_decay: a factor d: of the L layers of a backbone, number l from 0 has d ** (L - l) times the rate, so that
            the last one has d times that of necks and heads. Source: Bao et al., BEiT, arXiv:2106.08254, appendix; Li
            et al., ViTDet, arXiv:2203.16527, section 4. What a layer is, a backbone's `parameter_layers` says.
        norm_and_bias: applies to the norm layers and biases among them.
    """

    brief: ClassVar[bool] = True
    match: str | list[str] | None = None
    lr_factor: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
    norm_and_bias: NormAndBias | None = None

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from _faults(values)
        decay = values.get("layer_decay")
        if decay is not None and not 0 < decay <= 1:
            yield "layer_decay", f"is {decay:g}, expected a factor above 0, up to 1"
        if all(values.get(name, ...) is None for name in ("lr_factor", "weight_decay", "layer_decay", "norm_and_bias")):
            yield "match", "changes nothing; expected lr_factor, weight_decay, layer_decay or norm_and_bias beside it"


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float | None = 0.0,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    backbone_lr_factor: float = 1.0,
    groups: Sequence[ParameterGroup] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters in as few groups as their settings allow, in the order of the model.

    The rules are Detectron2's: weights of norm layers have their own weight decay, biases may have their own rate and
    decay. `groups` come after them.

    Returns:
        [{"params": [...], "lr": ..., "weight_decay": ...}, ...]; a shared parameter appears once.
    Raises:
        ValueError: the model has nothing to train, or an entry of `groups` is for nothing in it.
    """
    trainable = list(_trainable(model))
    if not trainable:
        raise ValueError("the model has no trainable parameter: everything is frozen")
    backbones = _backbones(model)
    if backbone_lr_factor != 1 and not backbones:
        raise ValueError(f"backbone_lr_factor is {backbone_lr_factor:g}, but the model has no backbone; remove it")
    changes = [_Change(model, number, group, [name for name, *_ in trainable]) for number, group in enumerate(groups)]
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, module in trainable:
        rate, decay = lr, weight_decay
        is_norm, is_bias = isinstance(module, NORMS), name.rpartition(".")[2] == "bias"
        if is_norm and weight_decay_norm is not None:
            decay = weight_decay_norm
        if is_bias:
            rate *= bias_lr_factor
            decay = decay if weight_decay_bias is None else weight_decay_bias
        if name.startswith(tuple(backbones)):
            rate *= backbone_lr_factor
        for change in changes:
            rate, decay = change.applied(name, is_norm or is_bias, rate, decay)
        found.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in found.items()]


class _Change:
    """An entry of `groups`, with the names that it is for."""

    def __init__(self, model: nn.Module, number: int, group: ParameterGroup, names: Sequence[str]) -> None:
        self.group = group
        self.names = set(names if group.match is None else matching(group.match, names, f"groups.{number}.match"))
        self.factors = _layer_factors(model, group.layer_decay) if group.layer_decay is not None else {}
        if group.layer_decay is not None and not self.factors.keys() & self.names:
            raise ValueError(f"groups.{number}.layer_decay is for backbones, but no parameter of one is trained here")

    def applied(self, name: str, norm_or_bias: bool, rate: float, decay: float) -> tuple[float, float]:
        """Rate and decay of a parameter, changed."""
        if name not in self.names:
            return rate, decay
        for one in (self.group, self.group.norm_and_bias if norm_or_bias else None):
            if one is not None:
                rate *= 1.0 if one.lr_factor is None else one.lr_factor
                decay = decay if one.weight_decay is None else one.weight_decay
        return rate * self.factors.get(name, 1.0), decay


def matching(patterns: str | Sequence[str], names: Iterable[str], where: str) -> list[str]:
    """The names that patterns are for.

    Raises:
        ValueError: one is for none of them; starts with `where`.
    """
    names = list(names)
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        own = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not own:
            parts = [name.split(".") for name in names]
            known = dict.fromkeys(".".join(one[:length]) for one in parts for length in range(1, len(one) + 1))
            near = nearest(pattern.rstrip("*").rstrip("."), known) or dict.fromkeys(one[0] for one in parts)
            raise ValueError(f"{where}: no parameter is called {pattern!r}.\n  Nearest: {', '.join(near)}")
        found |= dict.fromkeys(own)
    return list(found)


def _layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """{name: factor of the rate} of the parameters of all backbones."""
    factors: dict[str, float] = {}
    for prefix, module in _backbones(model).items():
        layers = getattr(module, "parameter_layers", lambda one=module: parameter_layers(one))()
        for number, names in enumerate(layers):
            factors |= {f"{prefix}{name}": decay ** (len(layers) - number) for name in names}
    return factors


def _backbones(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost backbones of a model, by what the names of their parameters start with."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        is_one = getattr(module, "component_kind", None) == "backbone" or path == "backbone"
        if is_one and path and not path.startswith(tuple(found)):
            found[f"{path}."] = module
    return found


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Each trainable parameter once: its whole name, itself, the module that owns it."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{prefix}.{name}" if prefix else name, parameter, module
