"""Semantic segmentation: a confusion matrix over pixels, and the numbers out of it."""

from vertebra.evaluation.semantic.sem_seg_evaluator import SemSegEvaluator
from vertebra_eval.semantic import SemanticScores

__all__ = ["SemSegEvaluator", "SemanticScores"]
