"""Where and how a model runs: device, automatic mixed precision, bf16 support, memory layout."""

from __future__ import annotations

import contextlib
import os
from typing import Literal

import torch

from vertebra.errors import SetupError

__all__ = ["autocast", "autocast_dtype", "choose_device", "make_grad_scaler", "supports_bf16", "use_channels_last"]


def choose_device(name: str = "auto") -> torch.device:
    """The device of this process: `auto` is its GPU where there is one, otherwise the CPU.

    Under torchrun each process takes the GPU of its LOCAL_RANK.
    Raises:
        SetupError: a GPU was requested that this machine does not have, or a device that cannot compute here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise SetupError(f"device {name!r} is not known to torch; use auto, cpu, cuda or cuda:0") from err
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        if index >= count:
            raise SetupError(
                f"device {name!r}: this process needs GPU {index}, but torch sees {count} GPUs here.\n"
                "  Set train.device=cpu, or start fewer processes per machine"
            )
        return torch.device("cuda", index)
    try:
        torch.zeros(1, device=device).add_(1).item()
    except Exception as err:  # each backend has a way of its own to say that it is not there
        raise SetupError(
            f"device {name!r} cannot be used here: {str(err).strip().splitlines()[0].partition('. ')[0]}.\n"
            "  Use auto, cpu, cuda or cuda:0"
        ) from err
    return device


def supports_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 natively, so that bf16 is faster than fp32 and not slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    has_kernels = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(has_kernels() and has_instructions())


def use_channels_last(wanted: bool | Literal["auto"], device: torch.device, *, training: bool) -> bool:
    """What `train.channels_last` means on this device: whether weights and batches lie in memory as NHWC.

    `auto` takes it wherever it is faster: on a GPU, and on a CPU for predictions. oneDNN's convolutions over NHWC have
    a slow backward pass without AVX-512 (weights of 512 x 2048 x 3 x 3: 1.9 times NCHW's), so training needs that.
    """
    if wanted != "auto":
        return wanted
    return device.type != "cpu" or not training or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def autocast_dtype(device: torch.device, amp: str = "auto") -> torch.dtype | None:
    """The format that `train.amp` or `evaluate.amp` means on this device; None: fp32 throughout.

    Raises:
        SetupError: fp16 away from a GPU.
    """
    if amp == "auto":
        return torch.bfloat16 if supports_bf16(device) else None
    if amp == "fp16" and device.type != "cuda":
        raise SetupError(f"amp: fp16 needs a GPU, the device is {device}; use amp: auto, bf16 or off")
    if amp not in ("bf16", "fp16", "off"):
        raise ValueError(f"amp is {amp!r}; expected auto, bf16, fp16 or off")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]


def autocast(device: torch.device, amp: str = "auto") -> contextlib.AbstractContextManager:
    """A fresh autocast context for `amp` on the device; does nothing where that means fp32."""
    dtype = autocast_dtype(device, amp)
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def make_grad_scaler(device: torch.device, amp: str) -> torch.amp.GradScaler:
    """Scales losses in fp16, where small gradients vanish; passes everything through in other formats."""
    return torch.amp.GradScaler(device.type, enabled=autocast_dtype(device, amp) == torch.float16)
