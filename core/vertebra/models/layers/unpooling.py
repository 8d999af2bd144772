"""Max pooling that remembers where its maxima stood, and its inverse.

Source: Noh et al., "Learning Deconvolution Network", arXiv:1505.04366, section 3.2.1; SegNet, arXiv:1511.00561.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MaxPoolWithIndices", "MaxUnpool"]


class MaxPoolWithIndices(nn.Module):
    """Max pooling without overlap; gives the maxima and where each stood.

    A row or column left over at an odd size falls away, so `MaxUnpool` must be told the size before pooling.

    Args:
        kernel_size: side and stride of a window, in cells.
    """

    def __init__(self, kernel_size: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to maxima and int64 indices into the H * W cells, both (N, C, H // k, W // k)."""
        return F.max_pool2d(x, self.kernel_size, return_indices=True)


class MaxUnpool(nn.Module):
    """Puts each value back where the maximum stood, 0 everywhere else.

    Args:
        kernel_size: of the pooling it undoes.
    """

    def __init__(self, kernel_size: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor, indices: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Values and indices (N, C, H, W) to (N, C, *size).

        Args:
            size: (height, width) before the pooling; None: kernel_size times H and W. It must be the true one, since
                the indices count cells of that size.
        """
        height, width = x.shape[-2] * self.kernel_size, x.shape[-1] * self.kernel_size
        if size is None:
            size = (height, width)
        # Written out: torch's max_unpool2d refuses sizes and layouts that this does not mind.
        flat = x.new_zeros(*x.shape[:2], size[0] * size[1])
        return flat.scatter(-1, indices.flatten(2), x.flatten(2)).view(*x.shape[:2], *size)
