"""LoRA: a frozen backbone, of which small adapters are trained.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1; the layers are
those of the package peft.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vertebra.errors import SetupError
from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra.models.given import further_parameters

if TYPE_CHECKING:
    from vertebra.models.batch import Batch

__all__ = ["LoRA"]

_ATTENTION = ("qkv", "q_proj", "k_proj", "v_proj")
"""Names that timm's transformers give the layers of queries, keys and values, joined or not: section 4.2 adapts these
alone, and leaves the rest of a block as it is."""

_REFUSED = ("use_dora", "init_lora_weights", "modules_to_save", "bias")
"""Options whose adapters are made of the weights, which `model.weights` may still replace, or that train more."""


class LoRA(Backbone):
    """A backbone whose own weights stay as they are; beside each chosen layer W it learns a product of two thin ones.

    The layer's answer to x is W x + (alpha / rank) B A x. B starts at 0, so that the backbone first answers as before.
    Batch normalization in it keeps its statistics. Neck and heads are trained as usual; checkpoints hold everything.

    Args:
        backbone: what is adapted, usually `{name: timm, pretrained: true, ...}`.
        rank: rows of A and columns of B.
        alpha: see above; as often, twice the rank where it is None.
        targets: names of the layers (`nn.Linear`, `nn.Conv2d`) to adapt, by their last parts: `qkv`, `attn.proj`. None:
            those of timm's transformers that give queries, keys and values.
        dropout: probability that an entry of x is dropped on its way to A, in training.
        options: further arguments of peft's `LoraConfig`, such as `use_rslora: true`.
    Raises:
        SetupError: peft is not installed.
        ValueError: no layer has a name in `targets`, or an option is refused.
    """

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 8,
        alpha: int | None = None,
        targets: Sequence[str] | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        try:
            import peft  # optional, and slow to import
        except ImportError as err:
            raise SetupError("backbone LoRA needs the package peft.\n  Fix it: pip install 'vertebra[peft]'") from err
        if rank < 1:
            raise ValueError(f"LoRA: rank is {rank}, it must be at least 1")
        if refused := [name for name in _REFUSED if name in options]:
            raise ValueError(
                f"LoRA: {', '.join(refused)} cannot be given: adapters must not depend on the weights, which "
                "model.weights may replace later, and nothing but adapters is trained. Remove it"
            )
        takes = further_parameters(type(backbone).forward)
        self._takes_batch = "batch" in takes
        if others := [name for name in takes if name != "batch"]:
            raise ValueError(f"LoRA gives a backbone images and the batch; {type(backbone).__name__} asks for {others}")
        try:
            config = peft.LoraConfig(
                r=rank,
                lora_alpha=2 * rank if alpha is None else alpha,
                target_modules="|".join(map(re.escape, _chosen(backbone, targets))),  # matched as a whole
                lora_dropout=dropout,
                **options,
            )
            peft.inject_adapter_in_model(config, backbone)  # in place; it freezes all but the adapters
        except TypeError as err:
            raise ValueError(f"LoRA: peft refuses the options {options}: {err}") from err
        self.backbone = backbone

    @property
    def size_divisibility(self) -> int:
        return self.backbone.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self.backbone.output_shape()

    def parameter_layers(self) -> list[list[str]]:
        return [[f"backbone.{name}" for name in layer] for layer in self.backbone.parameter_layers()]

    def named_as_here(self, prefix: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a model whose backbone, at `prefix`, has no adapters, under the names that they have here."""
        if any(name.startswith(f"{prefix}backbone.") for name in state):
            return state
        names = {name.replace(".base_layer.", "."): name for name in self.backbone.state_dict()}
        return {
            f"{prefix}backbone.{names[inner]}" if name.startswith(prefix) and inner in names else name: value
            for name, value in state.items()
            for inner in [name.removeprefix(prefix)]
        }

    def train(self, mode: bool = True) -> LoRA:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, images: Tensor, batch: Batch | None = None) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)}, as the backbone."""
        return self.backbone(images, **({"batch": batch} if self._takes_batch else {}))


def _chosen(backbone: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Whole names of the layers to adapt. Each target must have one, lest it be skipped in silence."""
    known = (nn.Linear, nn.Conv2d)  # themselves: in a subclass such as ConvNorm the layer does more than W x
    layers = [name for name, one in backbone.named_modules() if type(one) in known]
    found = {
        target: [name for name in layers if f".{name}".endswith(f".{target}")]
        for target in (_ATTENTION if targets is None else targets)
    }
    lacking = [target for target, names in found.items() if not names]
    if (targets is not None and lacking) or not any(found.values()):
        last = sorted({name.rpartition(".")[2] for name in layers})
        raise ValueError(
            f"LoRA: {type(backbone).__name__} has no linear or convolutional layer named "
            f"{', '.join(map(repr, lacking)) or 'in targets'}. Last parts of the names that it has: {', '.join(last)}"
        )
    return sorted({name for names in found.values() for name in names})
