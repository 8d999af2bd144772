"""Evaluation: the evaluator contract, COCO evaluation, the loop that runs them, and the report."""

from vertebra.evaluation.coco import COCOEvaluator
from vertebra.evaluation.contract import Evaluator
from vertebra.evaluation.run import EvaluationResult, evaluate

__all__ = ["COCOEvaluator", "EvaluationResult", "Evaluator", "evaluate"]
