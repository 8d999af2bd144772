"""Conformance kit: what a component promises, as tests that a plugin gets by naming its component.

    from vertebra.testing import HeadConformance

    class TestMyHead(HeadConformance):
        component = "MyHead"
        recipe = "my-plugin:my_recipe"

pytest collects the subclass; the checks themselves are plain methods and need no pytest.
"""

from vertebra.testing.backbones import BackboneConformance
from vertebra.testing.evaluators import EvaluatorConformance
from vertebra.testing.heads import HeadConformance
from vertebra.testing.hooks import HookConformance
from vertebra.testing.losses import LossConformance
from vertebra.testing.necks import NeckConformance

__all__ = [
    "BackboneConformance",
    "EvaluatorConformance",
    "HeadConformance",
    "HookConformance",
    "LossConformance",
    "NeckConformance",
]
