"""What the sizes of YOLOv10 differ in: depths, widths, and where compact inverted blocks stand."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from vertebra_yolo.csp_blocks import C2f, round_channels
from vertebra_yolo.v10_blocks import C2fCIB

__all__ = ["V10_SIZES", "V10Size", "V10SizeName", "make_stage"]

V10SizeName = Literal["n", "s", "m", "b", "l"]


@dataclass(frozen=True)
class V10Size:
    """One size.

    Args:
        depth: multiple of the numbers of blocks 3, 6, 6, 3.
        width: multiple of the channels 64 to 1024.
        most: channels before the multiple are at most this.
        compact: stages of compact inverted blocks, chosen in the paper by their intrinsic rank (section 3.2): `res5` of
            the backbone, and `top4`, `p4`, `p5` of the neck.
        large_kernel: whether those have 7x7 kernels: the small sizes alone.
    """

    depth: float
    width: float
    most: int
    compact: frozenset[str]
    large_kernel: bool = False

    def channels(self, base: int) -> int:
        return round_channels(min(base, self.most) * self.width)

    def blocks(self, base: int) -> int:
        return max(round(base * self.depth), 1)


V10_SIZES = {
    "n": V10Size(0.33, 0.25, 1024, frozenset({"p5"}), True),
    "s": V10Size(0.33, 0.50, 1024, frozenset({"res5", "p5"}), True),
    "m": V10Size(0.67, 0.75, 768, frozenset({"res5", "p4", "p5"})),
    "b": V10Size(0.67, 1.00, 512, frozenset({"res5", "top4", "p4", "p5"})),
    "l": V10Size(1.00, 1.00, 512, frozenset({"res5", "top4", "p4", "p5"})),
}


def make_stage(size: V10Size, name: str, in_channels: int, out_channels: int, num_blocks: int) -> nn.Module:
    """The C2f block of a stage, or its compact inverted form where the size has that; bottlenecks add their input in
    the backbone, not in the neck."""
    blocks = size.blocks(num_blocks)
    if name in size.compact:
        return C2fCIB(in_channels, out_channels, blocks, True, size.large_kernel)
    return C2f(in_channels, out_channels, blocks, shortcut=name.startswith("res"))
