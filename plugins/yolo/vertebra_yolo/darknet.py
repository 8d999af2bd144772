"""Darknet's networks as backbones: Darknet-53, Darknet-19 and the small one of YOLOv3-tiny, with the layer they share.

Sources: Redmon & Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767, table 1 (Darknet-53);
"YOLO9000: Better, Faster, Stronger", arXiv:1612.08242, table 6 (Darknet-19); Darknet's yolov3-tiny.cfg.
A feature is named for its stride: `c3` has stride 8, `c4` 16, `c5` 32.
"""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Backbone, ShapeSpec
from vertebra.models.layers import ConvNorm, NormName
from vertebra_yolo.darknet_file import load_convs

__all__ = ["Darknet19", "Darknet53", "DarknetConv", "TinyDarknet"]

SLOPE = 0.1  # of the leaky ReLU, for what is below 0


class DarknetConv(nn.Module):
    """Convolution, normalization, leaky ReLU: Darknet's section `[convolutional]`.

    Args:
        norm: see `vertebra.models.norms.get_norm`; without one the convolution has a bias.
        activate: False ends with the normalization ("linear").
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm: NormName = "bn",
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels, kernel_size, stride=stride, norm=norm)
        self.activate = activate
        nn.init.kaiming_normal_(self.conv.weight, a=SLOPE, nonlinearity="leaky_relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        x = self.conv(x)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.activate else x


class Darknet53(Backbone):
    """52 convolutions in residual blocks; strides come from convolutions. Features `c1` (stride 2) to `c5` (32).

    Args:
        norm: after each convolution, see `get_norm`.
        out_features: which of c1, ..., c5 to return; later stages than the last of these are not built.
        width: channels of the first convolution; the stages have 2, 4, 8, 16 and 32 times as many.
        depths: residual blocks of each stage.
        weights: a Darknet file that begins with these layers, such as darknet53.conv.74; None: random.
    """

    def __init__(
        self,
        norm: NormName = "bn",
        out_features: Sequence[str] = ("c3", "c4", "c5"),
        width: int = 32,
        depths: Sequence[int] = (1, 2, 8, 8, 4),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if len(depths) != 5 or min(depths) < 0 or width < 2:
            raise ValueError(
                f"Darknet53 has five stages of 0 or more blocks and a width from 2 on, got {depths}, {width}"
            )
        channels = [width * 2**level for level in range(6)]
        shapes = {f"c{i}": ShapeSpec(channels=channels[i], stride=2**i) for i in range(1, 6)}
        self._shapes = chosen_shapes("Darknet53", shapes, out_features)
        self.stem = DarknetConv(3, width, 3, norm=norm)
        self.stages = nn.ModuleDict()
        for index in range(1, last_level(self._shapes) + 1):
            blocks = [_Residual(channels[index], norm) for _ in range(depths[index - 1])]
            down = DarknetConv(channels[index - 1], channels[index], 3, stride=2, norm=norm)
            self.stages[f"c{index}"] = nn.Sequential(down, *blocks)
        if weights is not None:
            load_convs(darknet_convs(self), weights, whole=False)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)} for the `out_features`."""
        return run_stages(self.stages, self.stem(images), self._shapes)


class Darknet19(Backbone):
    """18 convolutions of 3x3 and 1x1 by turns, five poolings between. Features `c1` to `c5`.

    `c1` to `c4` are what goes into a pooling, on the finer side of it: `c4` has stride 16 and 512 channels, and is what
    YOLOv2 passes on to its end. The table's last convolution, which classifies, is not part of it.

    Args: see `Darknet53`.
    """

    def __init__(
        self,
        norm: NormName = "bn",
        out_features: Sequence[str] = ("c4", "c5"),
        width: int = 32,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(6)]
        shapes = {f"c{i}": ShapeSpec(channels=channels[i], stride=2**i) for i in range(1, 6)}
        self._shapes = chosen_shapes("Darknet19", shapes, out_features)
        self.stem = DarknetConv(3, width, 3, norm=norm)
        self.stages = nn.ModuleDict()
        for index, convs in enumerate((1, 3, 3, 5, 5)[: last_level(self._shapes)], start=1):
            wide, narrow = channels[index], channels[index] // 2
            layers: list[nn.Module] = [nn.MaxPool2d(2)]
            for row in range(convs):
                odd = row % 2 == 1  # 1x1, half as wide, between two 3x3
                sizes = (wide, narrow, 1) if odd else (channels[index - 1] if row == 0 else narrow, wide, 3)
                layers.append(DarknetConv(*sizes, norm=norm))
            self.stages[f"c{index}"] = nn.Sequential(*layers)
        if weights is not None:
            load_convs(darknet_convs(self), weights, whole=False)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)} for the `out_features`."""
        return run_stages(self.stages, self.stem(images), self._shapes)


class TinyDarknet(Backbone):
    """The backbone of YOLOv3-tiny: seven 3x3 convolutions, a pooling after each but the last. Features `c1` to `c5`.

    The sixth pooling keeps its size (stride 1), so `c5` is the coarsest.

    Args: see `Darknet53`; the widths are 1, 2, 4, ... 64 times `width`.
    """

    def __init__(
        self,
        norm: NormName = "bn",
        out_features: Sequence[str] = ("c4", "c5"),
        width: int = 16,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(7)]
        shapes = {f"c{i}": ShapeSpec(channels=channels[i], stride=2**i) for i in range(1, 5)}
        shapes["c5"] = ShapeSpec(channels=channels[6], stride=32)
        self._shapes = chosen_shapes("TinyDarknet", shapes, out_features)
        self.stem = DarknetConv(3, width, 3, norm=norm)
        self.stages = nn.ModuleDict()
        for index in range(1, last_level(self._shapes) + 1):
            layers = [nn.MaxPool2d(2), DarknetConv(channels[index - 1], channels[index], 3, norm=norm)]
            if index == 5:
                layers += [PoolInPlace(), DarknetConv(channels[5], channels[6], 3, norm=norm)]
            self.stages[f"c{index}"] = nn.Sequential(*layers)
        if weights is not None:
            load_convs(darknet_convs(self), weights, whole=False)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)} for the `out_features`."""
        return run_stages(self.stages, self.stem(images), self._shapes)


class PoolInPlace(nn.Module):
    """Maximum of 2x2 cells at stride 1; the last row and column count twice, so that the size stays."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), kernel_size=2, stride=1)


def chosen_shapes(who: str, shapes: Mapping[str, ShapeSpec], out_features: Sequence[str]) -> dict[str, ShapeSpec]:
    """Those of `shapes` that are requested, in the order of `shapes`."""
    unknown = [name for name in out_features if name not in shapes]
    if unknown or not out_features:
        raise ValueError(f"{who}: out_features {list(out_features)} must be some of {', '.join(shapes)}")
    return {name: spec for name, spec in shapes.items() if name in out_features}


def last_level(shapes: Mapping[str, ShapeSpec]) -> int:
    """Number of the coarsest feature: 5 for `c5`."""
    return int(list(shapes)[-1].removeprefix("c"))


def run_stages(stages: nn.ModuleDict, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """Each stage on the output of the one before; the outputs that are wanted, by the stages' names."""
    features = {}
    for name, stage in stages.items():
        x = stage(x)
        if name in wanted:
            features[name] = x
    return features


def darknet_convs(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of all `DarknetConv` in a module, in the order in which they were made."""
    return [layer.conv for layer in module.modules() if isinstance(layer, DarknetConv)]


class _Residual(nn.Module):
    """1x1 to half the width, 3x3 back to it, and the input added."""

    def __init__(self, channels: int, norm: NormName) -> None:
        super().__init__()
        self.conv1 = DarknetConv(channels, channels // 2, 1, norm=norm)
        self.conv2 = DarknetConv(channels // 2, channels, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))
