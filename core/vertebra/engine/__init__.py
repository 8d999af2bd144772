"""Training: the Trainer, its hooks, optimizers, schedules, checkpoints and the distributed run.

Names are imported on first use: a recipe that only names a schedule need not load data and evaluation code.
"""

from __future__ import annotations

import importlib
from typing import Any

import vertebra._torch  # noqa: F401  checks that torch and torchvision fit

_HOMES = {
    "vertebra.engine.checkpoint": ("CheckpointStore", "read_checkpoint", "write_checkpoint"),
    "vertebra.runtime.distributed": ("is_main_process", "rank", "world_size"),
    "vertebra.engine.hooks.contract": ("Hook",),
    "vertebra.engine.launch": ("launch",),
    "vertebra.engine.optimizers": ("OptimizerBuilder", "parameter_groups"),
    "vertebra.engine.parts": ("Parts", "Plan"),
    "vertebra.runtime": ("autocast", "choose_device", "supports_bf16"),
    "vertebra.engine.run_folder": ("RunFolder", "choose_run_folder"),
    "vertebra.engine.schedules": ("Schedule",),
    "vertebra.engine.trainer": ("Trainer",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'vertebra.engine' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
