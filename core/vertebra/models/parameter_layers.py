"""The layers of a backbone from input to output, for rates that fall toward the input."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["NORMS", "parameter_layers"]

NORMS = (
    nn.modules.batchnorm._NormBase,  # batch, sync-batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
_LISTS = (nn.Sequential, nn.ModuleList)


def parameter_layers(backbone: nn.Module) -> list[list[str]]:
    """Names of parameters, layer by layer, in the order in which a module's children are defined.

    A layer is a child, or an item of a list of blocks: the stem and each block of a ResNet, the patch embedding and
    each block of a ViT. A module that holds a list of equal blocks is a stage, of which each block is a layer. Position
    embeddings and other parameters beside the layers belong to the first one, norms to the layer before them.
    """
    layers: list[list[str]] = []
    for names, is_norm in _layers(backbone, ""):
        if is_norm and layers:
            layers[-1] += names
        else:
            layers.append(names)
    return layers


def _layers(module: nn.Module, path: str) -> Iterator[tuple[list[str], bool]]:
    """(names of parameters, whether it is a norm) of each layer."""
    beside = [f"{path}{name}" for name, _ in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        names = [f"{path}{name}.{one}" for one, _ in child.named_parameters()]
        if not names:
            continue
        inside = [(names, isinstance(child, NORMS))]
        if _is_stage(child) or _wraps_one(module):
            inside = list(_layers(child, f"{path}{name}.")) or inside
        for one, is_norm in inside:
            yield [*beside, *one], is_norm and not beside
            beside = []
    if beside:
        yield beside, False


def _is_stage(module: nn.Module) -> bool:
    if type(module) in _LISTS or isinstance(module, nn.ModuleDict):
        return True
    lists = [list(child.children()) for child in module.children() if type(child) in _LISTS]
    return any(len(one) > 1 and len({type(item) for item in one}) == 1 and any(one[0].children()) for one in lists)


def _wraps_one(module: nn.Module) -> bool:
    learning = [child for child in module.children() if any(True for _ in child.parameters())]
    return type(module) not in _LISTS and len(learning) == 1
