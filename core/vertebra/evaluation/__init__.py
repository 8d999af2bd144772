"""Evaluation: the evaluator contract, COCO evaluation, the loop that runs them, and the report."""

from vertebra.evaluation.coco import COCOEvaluator
from vertebra.evaluation.cocoeval import coco_evaluate
from vertebra.evaluation.contract import Evaluator
from vertebra.evaluation.panoptic import PanopticEvaluator, panoptic_evaluate
from vertebra.evaluation.run import EvaluationResult, evaluate
from vertebra.evaluation.semantic import SemSegEvaluator

__all__ = [
    "COCOEvaluator",
    "EvaluationResult",
    "Evaluator",
    "PanopticEvaluator",
    "SemSegEvaluator",
    "coco_evaluate",
    "evaluate",
    "panoptic_evaluate",
]
