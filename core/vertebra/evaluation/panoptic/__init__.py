"""Panoptic segmentation: PQ, SQ and RQ from memory and from COCO's files."""

from __future__ import annotations

from vertebra_eval._lazy import lazy_exports

_HOMES = {
    "vertebra.evaluation.panoptic.panoptic_evaluator": ("PanopticEvaluator",),
    "vertebra_eval.panoptic.files": ("panoptic_evaluate",),
    "vertebra_eval.panoptic.quality": ("ClassQuality", "GroupQuality", "PanopticQuality"),
}

__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)
