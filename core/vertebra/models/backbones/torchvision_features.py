"""Runs a torchvision classifier's `features` up to chosen layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra.models.fuse import fold_neighbours
from vertebra.models.weights import load_weights, read_weights

__all__ = ["FeatureLayers", "TorchvisionFeatures"]


class TorchvisionFeatures(Backbone):
    """A torchvision classifier without its classifier.

    Args:
        layers: its `features`.
        known: all feature maps that it has, in the order of the layers.
        ends: number of the layer whose output is the feature, by name.
        wanted: names of the features to return.
        weights: a file, URL or `torchvision:NAME` in torchvision's names; None: as they are.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        known: dict[str, ShapeSpec],
        ends: dict[str, int],
        wanted: Sequence[str],
        weights: str | None,
    ) -> None:
        super().__init__()
        if not wanted or not set(wanted) <= known.keys():
            names = ", ".join(known)
            raise ValueError(f"{type(self).__name__}: out_features {list(wanted)} must be some of {names}")
        self._shapes = {name: spec for name, spec in known.items() if name in wanted}
        self.features = FeatureLayers(layers, {name: ends[name] for name in self._shapes})
        if weights is not None:
            _load_features(self, weights)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, ceil(H / s), ceil(W / s))}."""
        return self.features(images)


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


def _load_features(backbone: Backbone, source: str) -> None:
    """Loads torchvision's weights (`features.0.0.weight`, ...); layers not built and the classifier are skipped."""
    own = backbone.state_dict()
    layers = {name.split(".")[1] for name in own}
    given = read_weights(source)
    state = {name: value for name, value in given.items() if name in own or _layer(name) in layers}
    load_weights(backbone, state, source=source)


def _layer(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "features" and len(parts) > 2 else None
