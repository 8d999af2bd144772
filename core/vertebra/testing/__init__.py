"""Conformance kit: what a component promises, as tests that a plugin gets by naming its component.

    from vertebra.testing import HeadConformance

    class TestMyHead(HeadConformance):
        component = "MyHead"
        recipe = "my-plugin:my_recipe"

pytest collects the subclass; the checks themselves are plain methods and need no pytest. Names are imported on first
use, so that a spawned process loads no more than it needs.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BackboneConformance": "vertebra.testing.backbones",
    "EvaluatorConformance": "vertebra.testing.evaluators",
    "HeadConformance": "vertebra.testing.heads",
    "HookConformance": "vertebra.testing.hooks",
    "LossConformance": "vertebra.testing.losses",
    "NeckConformance": "vertebra.testing.necks",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vertebra.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
