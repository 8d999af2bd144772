"""Resizing of pixels, bit for bit as `resize_image` of torchvision.transforms.v2.functional.

torchvision is not imported for it: that takes as much CPU time as the import of torch (2.5 s).
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["resize_pixels"]


def resize_pixels(pixels: Tensor, size: tuple[int, int], *, smooth: bool) -> Tensor:
    """(C, H, W) to (C, *size), of the same type and memory layout.

    Args:
        smooth: bilinear with antialiasing; otherwise the pixel nearest to the center, as Pillow takes it (torch's plain
            "nearest" takes the upper left one).
    """
    if pixels.shape[-2:] == tuple(size):
        return pixels
    if pixels.numel() == 0:
        return pixels.new_zeros((len(pixels), *size))
    batch = pixels.reshape(1, *pixels.shape)
    if batch.is_contiguous(memory_format=torch.channels_last):  # torch asks the batch's stride which layout it has
        batch = batch.as_strided(batch.shape, (pixels.numel(), *batch.stride()[1:]))
    direct = pixels.dtype in (torch.float32, torch.float64) or (
        pixels.dtype == torch.uint8 and (not smooth or (pixels.is_cpu and _smooths_uint8()))
    )
    mode = {"mode": "bilinear", "align_corners": False, "antialias": True} if smooth else {"mode": "nearest-exact"}
    whole = not smooth and pixels.dtype in (torch.int32, torch.int64)  # float32 has not all of these
    resized = interpolate(batch if direct else batch.double() if whole else batch.float(), size=list(size), **mode)[0]
    if not direct:
        resized = (resized if pixels.is_floating_point() else resized.round_()).to(pixels.dtype)
    return resized


def _smooths_uint8() -> bool:
    """Whether torch resizes uint8 on this CPU faster than float32."""
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return fast or platform.machine() in ("aarch64", "arm64")
