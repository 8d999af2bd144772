"""Conformance kit: what a component promises, as tests that a plugin gets by naming its component.

    from vertebra.testing import HeadConformance

    class TestMyHead(HeadConformance):
        component = "MyHead"
        recipe = "my-plugin:my_recipe"

pytest collects the subclass; the checks themselves are plain methods and need no pytest. Names are imported on first
use, so that a spawned process loads no more than it needs.
"""

from __future__ import annotations

from vertebra._deprecation import former_names
from vertebra_eval._lazy import lazy_exports

_HOMES = {
    "vertebra.testing.backbones": ("BackboneConformance",),
    "vertebra.testing.evaluators": ("EvaluatorConformance",),
    "vertebra.testing.formats": ("FormatConformance",),
    "vertebra.testing.heads": ("HeadConformance",),
    "vertebra.testing.hooks": ("HookConformance",),
    "vertebra.testing.losses": ("LossConformance",),
    "vertebra.testing.models": ("ModelConformance",),
    "vertebra.testing.necks": ("NeckConformance",),
    "vertebra.testing.samplers": ("SamplerConformance",),
    "vertebra.testing.transforms": ("TransformConformance",),
}

_get, __dir__, __all__ = lazy_exports(__name__, _HOMES)
__getattr__ = former_names(__name__, _get)
