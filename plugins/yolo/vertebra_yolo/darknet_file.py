"""Darknet's `.weights` files: a header, then the numbers of one convolution after the other.

The layout is Darknet's own: three int32 (major, minor, revision) and the number of images seen (int64 from version 0.2
on, before that int32), little endian; then float32: of each convolution its biases, or with batch normalization shift,
scale, mean and variance; then its kernel (C_out, C_in, k, k). Some programs write a header of the other length than its
version demands; such a file is read only where its contents leave no doubt.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vertebra.errors import CheckpointError
from vertebra.files import read_bytes
from vertebra.models import fetch

__all__ = ["Header", "load_convs", "read_darknet"]

_FIRST = np.dtype([("major", "<i4"), ("minor", "<i4"), ("revision", "<i4")])
_LONG_COUNT = 2  # 10 * major + minor from which on the images are counted in 64 bits
_MOST_IMAGES = 2**48  # a 64-bit count above this is a 32-bit one and the first weight


class Header(NamedTuple):
    """The first numbers of a file."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    images_seen: int = 0

    @property
    def counter(self) -> np.dtype:
        """How `images_seen` is written."""
        return np.dtype("<i8" if 10 * self.major + self.minor >= _LONG_COUNT else "<i4")


def read_darknet(path: str | Path, needed: int | None = None) -> tuple[Header, np.ndarray]:
    """The header and all further numbers, float32.

    Args:
        needed: number of weights of the network, to tell headers of five integers from those of four.

    Raises:
        CheckpointError: there is no such file, or it is not a Darknet weights file.
    """
    content = read_bytes(fetch(path))
    if len(content) < _FIRST.itemsize + 4:
        raise CheckpointError(f"{path}: has {len(content)} bytes, too few for the header of a Darknet weights file")
    header = Header(*(int(number) for number in np.frombuffer(content, _FIRST, count=1)[0]))
    if not (0 <= header.major < 1000 and 0 <= header.minor < 1000):
        raise CheckpointError(
            f"{path}: begins with version {header.major}.{header.minor}, which is not a Darknet version; is it a "
            "Darknet weights file?"
        )
    if len(content) % 4 or len(content) < _FIRST.itemsize + header.counter.itemsize:
        raise CheckpointError(f"{path}: is cut off: {len(content)} bytes are not a header and whole numbers (float32)")
    counter = _counter_of(header, content, needed, path)
    start = _FIRST.itemsize + counter.itemsize
    seen = int(np.frombuffer(content, counter, count=1, offset=_FIRST.itemsize)[0])
    return header._replace(images_seen=seen), np.frombuffer(content, "<f4", offset=start)


def _counter_of(header: Header, content: bytes, needed: int | None, path: str | Path) -> np.dtype:
    """How this file counts images: as its version says, unless its fifth integer shows that it does not."""
    short, long = np.dtype("<i4"), np.dtype("<i8")
    numbers = (len(content) - _FIRST.itemsize - long.itemsize) // 4  # after five integers
    if numbers < 0:
        return short
    seen = int(np.frombuffer(content, long, count=1, offset=_FIRST.itemsize)[0])
    if header.counter == long:
        return long if 0 <= seen < _MOST_IMAGES else short
    if needed is None or numbers < needed or not 0 <= seen < 2**32:  # if the fifth is not 0, it is a weight
        return short
    if numbers == needed:
        return long
    raise CheckpointError(
        f"{path}: version {header.major}.{header.minor} means a header of four integers, but the fifth is 0, as in a "
        f"header of five, and neither leaves the {needed:,} numbers of this network: there are {numbers + 1:,} or "
        f"{numbers:,}.\n  Is it of this network? Then write it with version 0.2 and a 64-bit number of images seen"
    )


def load_convs(convs: Sequence[nn.Conv2d], path: str | Path, *, whole: bool = True) -> Header:
    """Fills convolutions, and the batch normalization in their child `norm`, from a file.

    Args:
        convs: in the order of the file.
        whole: the file must end with the last of them; otherwise it may go on with what is not needed.
    Raises:
        CheckpointError: the file has fewer numbers than the convolutions, or (with `whole`) more.
    """
    tensors = list(_tensors_of(convs))
    needed = sum(tensor.numel() for tensor in tensors)
    header, numbers = read_darknet(path, needed)
    if len(numbers) < needed or (whole and len(numbers) > needed):
        raise CheckpointError(
            f"{path}: holds {len(numbers):,} numbers, but the {len(convs)} convolutions of this network {needed:,}. "
            "The weights are of another network, or of another number of classes"
        )
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            part = numbers[start : start + tensor.numel()]
            tensor.copy_(torch.from_numpy(part.astype(np.float32)).view(tensor.shape))
            start += tensor.numel()
    return header


def _tensors_of(convs: Sequence[nn.Conv2d]) -> Iterator[Tensor]:
    """What the file holds of each convolution, in its order."""
    for conv in convs:
        norm = getattr(conv, "norm", None)
        if norm is None and conv.bias is not None:
            yield conv.bias
        elif norm is not None and hasattr(norm, "running_mean"):
            yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var)
        else:
            raise CheckpointError(
                f"Darknet knows batch normalization alone, but a layer here has {type(norm).__name__}; set norm: bn"
            )
        yield conv.weight
