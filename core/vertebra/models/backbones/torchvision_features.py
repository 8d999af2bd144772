"""Runs a torchvision classifier's `features` up to chosen layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra.models.fuse import fold_neighbours
from vertebra.models.weights import load_weights, read_weights

__all__ = ["FeatureLayers", "choose_features", "load_features"]


class FeatureLayers(nn.Module):
    """The layers 0 to the last wanted one, under torchvision's own numbers.

    Args:
        layers: the classifier's `features`.
        ends: number of the layer whose output is the feature, by name.
    """

    def __init__(self, layers: nn.Sequential, ends: dict[str, int]) -> None:
        super().__init__()
        for number in range(max(ends.values()) + 1):
            self.add_module(str(number), layers[number])
        self.names = {end: name for name, end in ends.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = {}
        for number, layer in enumerate(self.children()):
            x = layer(x)
            if number in self.names:
                # A later in-place ReLU must not reach into a returned feature: all ends lie behind an activation,
                # or before a layer that begins with a convolution.
                features[self.names[number]] = x
        return features

    def fold_norm(self) -> None:
        """For inference, see `fuse_conv_bn`."""
        fold_neighbours(self)


def choose_features(backbone: str, known: dict[str, ShapeSpec], wanted: Sequence[str]) -> dict[str, ShapeSpec]:
    """The wanted features in the order of the layers, or an error that lists the known ones."""
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"{backbone}: out_features {list(wanted)} must be some of {', '.join(known)}")
    return {name: spec for name, spec in known.items() if name in wanted}


def load_features(backbone: Backbone, source: str) -> None:
    """Loads torchvision's weights (`features.0.0.weight`, ...); layers not built and the classifier are skipped."""
    own = backbone.state_dict()
    layers = {name.split(".")[1] for name in own}
    given = read_weights(source)
    state = {name: value for name, value in given.items() if name in own or _layer(name) in layers}
    load_weights(backbone, state, source=source)


def _layer(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "features" and len(parts) > 2 else None
