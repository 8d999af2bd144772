"""What a running process needs to know of its machine: device, number format, memory layout, fellow processes."""

import vertebra._torch  # noqa: F401  checks that torch and torchvision fit
from vertebra.runtime.precision import (
    autocast,
    autocast_dtype,
    choose_device,
    make_grad_scaler,
    supports_bf16,
    use_channels_last,
)

__all__ = ["autocast", "autocast_dtype", "choose_device", "make_grad_scaler", "supports_bf16", "use_channels_last"]
