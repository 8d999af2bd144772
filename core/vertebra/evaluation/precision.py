"""The number format a model is evaluated in: the same rule as in training, `evaluate.amp`."""

from __future__ import annotations

import contextlib

import torch

from vertebra.errors import SetupError

__all__ = ["autocast"]


def autocast(device: torch.device, amp: str) -> contextlib.AbstractContextManager:
    """A fresh autocast context; `auto` is bf16 where the device computes in it natively, else fp32.

    Raises:
        SetupError: fp16 away from a GPU.
    """
    if amp == "fp16" and device.type != "cuda":
        raise SetupError(f"evaluate.amp: fp16 needs a GPU, the device is {device}; use auto, bf16 or off")
    if amp == "off" or (amp == "auto" and not _has_bf16(device)):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if amp == "fp16" else torch.bfloat16)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    has_kernels = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(has_kernels() and has_instructions())
