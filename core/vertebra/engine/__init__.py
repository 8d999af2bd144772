"""Training: the Trainer, its hooks, optimizers, schedules, checkpoints and the distributed run.

Names are imported on first use: a recipe that only names a schedule need not load data and evaluation code.
"""

from __future__ import annotations

import vertebra._torch  # noqa: F401  checks that torch and torchvision fit
from vertebra._deprecation import former_names
from vertebra_eval._lazy import lazy_exports

_HOMES = {
    "vertebra.engine.checkpoint": ("CheckpointStore", "read_checkpoint", "write_checkpoint"),
    "vertebra.runtime.distributed": ("is_main_process", "rank", "world_size"),
    "vertebra.engine.hook": ("Hook",),
    "vertebra.models.import_weights": ("ImportReport", "Layout", "import_weights"),
    "vertebra.engine.launching": ("launch",),
    "vertebra.engine.optimizers": ("OptimizerBuilder",),
    "vertebra.engine.param_groups": ("NormAndBias", "ParameterGroup", "parameter_groups"),
    "vertebra.engine.parts": ("Parts", "Plan"),
    "vertebra.runtime": ("autocast", "choose_device", "supports_bf16"),
    "vertebra.engine.rng": ("seed_everything",),
    "vertebra.engine.run_folder": ("RunFolder", "choose_run_folder"),
    "vertebra.engine.schedules": ("Schedule",),
    "vertebra.engine.step": ("Step",),
    "vertebra.engine.trainer": ("Trainer",),
}

_get, __dir__, __all__ = lazy_exports(__name__, _HOMES)
__getattr__ = former_names(__name__, _get)
