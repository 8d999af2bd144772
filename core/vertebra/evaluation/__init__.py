"""Evaluation: the evaluator contract, COCO evaluation, the loop that runs them, and the report.

Names are imported on first use: to evaluate result files takes neither torch nor a model.
"""

from __future__ import annotations

from vertebra._deprecation import former_names
from vertebra_eval._lazy import lazy_exports

_HOMES = {
    "vertebra.evaluation.coco_evaluator": ("COCOEvaluator",),
    "vertebra_eval.coco": ("coco_evaluate",),
    "vertebra.evaluation.evaluator": ("Evaluator",),
    "vertebra_eval.lvis": ("lvis_evaluate",),
    "vertebra.evaluation.lvis_evaluator": ("LVISEvaluator",),
    "vertebra.evaluation.panoptic": ("PanopticEvaluator", "panoptic_evaluate"),
    "vertebra.evaluation.printed": ("print_evaluation",),
    "vertebra.evaluation.report.segmentation_pictures": ("draw_pairs",),
    "vertebra.evaluation.run": ("EvaluationResult", "evaluate"),
    "vertebra.evaluation.semantic": ("SemSegEvaluator",),
    "vertebra_eval.overlap_ap": ("average_precision", "match_by_overlap"),
    "vertebra_eval.report.blocks": ("Facts", "Figure", "Gallery", "Picture", "Section", "Table", "Text"),
    "vertebra_eval.voc": ("voc_evaluate",),
    "vertebra.evaluation.voc_evaluator": ("VOCEvaluator",),
}

_get, __dir__, __all__ = lazy_exports(__name__, _HOMES)
__getattr__ = former_names(__name__, _get)
