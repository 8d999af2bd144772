"""Sizes of a U-Net with valid convolutions, and images that go on as in a mirror beyond their borders.

Source: Ronneberger et al., arXiv:1505.04597: section 2, "overlap-tile strategy" and figures 1 and 2.
"""

import torch
from torch import Tensor

__all__ = ["mirror", "valid_input", "valid_margin"]


def valid_margin(num_stages: int, num_convs: int = 2) -> int:
    """Input pixels on every side that the scores do not cover: 92 for five stages of two 3x3 convolutions.

    A convolution at stride s takes s pixels off each side; there are `num_stages` stages going down and one less up.
    """
    return num_convs * ((2**num_stages - 1) + (2 ** (num_stages - 1) - 1))


def valid_input(output: int, num_stages: int, num_convs: int = 2) -> int:
    """The smallest input side, in pixels, whose scores have a side of at least `output`, and that halves evenly.

    Five stages of two convolutions take sides of 16 n + 12: 188, 204, ..., 572.
    """
    lost = 2 * num_convs
    side = max(output, 1)
    for _ in range(num_stages - 1):  # back through the stages that go up, to the least bottom side
        side = -(-(side + lost) // 2)
    side += lost
    for _ in range(num_stages - 1):  # and back through those that go down
        side = 2 * side + lost
    return side


def mirror(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """(N, C, H, W) to (N, C, height, width): `top` rows above and `left` columns before are the image mirrored.

    The border itself is not repeated, as in figure 2; where the image is narrower than what is missing, it is mirrored
    again and again. One pixel fills everything.
    """
    rows = _mirrored(images.shape[-2], top, height, images.device)
    columns = _mirrored(images.shape[-1], left, width, images.device)
    return images[..., rows, :][..., columns]


def _mirrored(size: int, before: int, length: int, device: torch.device) -> Tensor:
    """(length,) int64: which of `size` pixels lies at each place, the first `before` places being mirrored ones."""
    period = 2 * (size - 1)
    places = torch.arange(length, device=device) - before
    if period == 0:
        return torch.zeros_like(places)
    places = places % period  # a walk to and fro
    return torch.minimum(places, period - places)
