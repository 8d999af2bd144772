"""The networks of YOLOv1: 24 convolutions, and the fast one of 9.

Source: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection", arXiv:1506.02640, section 2.1 and
figure 3; the fast network with the layers of Darknet's yolo-tiny.cfg of that time.
Both end at stride 64. Their fully connected layers, which fix the size of the input, are the head's.
"""

from torch import Tensor, nn

from vertebra.models import Backbone, ShapeSpec
from vertebra.models.layers import NormName
from vertebra_yolo.darknet import DarknetConv

__all__ = ["FastYOLOv1Backbone", "YOLOv1Backbone"]

_POOL = "pool"
_LAYERS = (  # (channels, kernel, stride)
    (64, 7, 2), _POOL,
    (192, 3, 1), _POOL,
    (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), _POOL,
    *((256, 1, 1), (512, 3, 1)) * 4, (512, 1, 1), (1024, 3, 1), _POOL,
    *((512, 1, 1), (1024, 3, 1)) * 2, (1024, 3, 1), (1024, 3, 2),
    (1024, 3, 1), (1024, 3, 1),
)  # fmt: skip
_FAST_LAYERS = (
    (16, 3, 1), _POOL, (32, 3, 1), _POOL, (64, 3, 1), _POOL, (128, 3, 1), _POOL, (256, 3, 1), _POOL, (512, 3, 1), _POOL,
    (1024, 3, 1), (1024, 3, 1), (1024, 3, 1),
)  # fmt: skip
_STRIDE = 64


class YOLOv1Backbone(Backbone):
    """The 24 convolutions of figure 3. One feature, `c6`, of stride 64.

    Args:
        norm: after each convolution, see `get_norm`. The paper's network has none.
        image_size: edge of the input in pixels. Smaller batches are padded to it (on the right and below), so that the
            head's fully connected layers fit; larger ones they refuse.
        width: share of the paper's channels.
    """

    def __init__(self, norm: NormName = "", image_size: int = 448, width: float = 1.0) -> None:
        super().__init__()
        self.image_size = checked_size("YOLOv1Backbone", image_size)
        self.layers = _build(_LAYERS, norm, width)
        self._shapes = {"c6": ShapeSpec(channels=_wide(1024, width), stride=_STRIDE)}

    @property
    def size_divisibility(self) -> int:
        """The edge of the input: every batch is padded to it."""
        return self.image_size

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {"c6": (N, C, ceil(H / 64), ceil(W / 64))}."""
        return {"c6": self.layers(images)}


class FastYOLOv1Backbone(Backbone):
    """The fast network's 9 convolutions, a pooling after each of the first six. One feature, `c6`, of stride 64.

    Args: see `YOLOv1Backbone`.
    """

    def __init__(self, norm: NormName = "", image_size: int = 448, width: float = 1.0) -> None:
        super().__init__()
        self.image_size = checked_size("FastYOLOv1Backbone", image_size)
        self.layers = _build(_FAST_LAYERS, norm, width)
        self._shapes = {"c6": ShapeSpec(channels=_wide(1024, width), stride=_STRIDE)}

    @property
    def size_divisibility(self) -> int:
        """The edge of the input: every batch is padded to it."""
        return self.image_size

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {"c6": (N, C, ceil(H / 64), ceil(W / 64))}."""
        return {"c6": self.layers(images)}


def checked_size(who: str, image_size: int) -> int:
    """The edge of the input; at least one pixel."""
    if image_size < 1:
        raise ValueError(f"{who}: image_size is {image_size}; it is the input's edge in pixels, 448 in the paper")
    return image_size


def _build(table: tuple, norm: NormName, width: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 3
    for row in table:
        if row == _POOL:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # as if padded, where a side is odd
            continue
        channels, kernel_size, stride = row
        layers.append(DarknetConv(in_channels, _wide(channels, width), kernel_size, stride=stride, norm=norm))
        in_channels = _wide(channels, width)
    return nn.Sequential(*layers)


def _wide(channels: int, width: float) -> int:
    return max(1, round(channels * width))
