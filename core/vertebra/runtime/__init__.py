"""What a running process needs to know of its machine: device, number format, memory layout, fellow processes."""

import vertebra._torch  # noqa: F401  checks that torch and torchvision fit
from vertebra._deprecation import former_names
from vertebra.runtime.distributed import gather_to_main, is_main_process, on_main_process, rank, world_size
from vertebra.runtime.precision import (
    autocast,
    autocast_dtype,
    choose_device,
    make_grad_scaler,
    supports_bf16,
    use_channels_last,
)

__all__ = [
    "autocast",
    "autocast_dtype",
    "choose_device",
    "gather_to_main",
    "is_main_process",
    "make_grad_scaler",
    "on_main_process",
    "rank",
    "supports_bf16",
    "use_channels_last",
    "world_size",
]

__getattr__ = former_names(__name__)
