"""Evaluation: the evaluator contract, COCO evaluation, the loop that runs them, and the report.

Names are imported on first use: to evaluate result files takes neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "vertebra.evaluation.coco": ("COCOEvaluator",),
    "vertebra.evaluation.cocoeval": ("coco_evaluate",),
    "vertebra.evaluation.contract": ("Evaluator",),
    "vertebra.evaluation.panoptic": ("PanopticEvaluator", "panoptic_evaluate"),
    "vertebra.evaluation.run": ("EvaluationResult", "evaluate"),
    "vertebra.evaluation.semantic": ("SemSegEvaluator",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'vertebra.evaluation' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
