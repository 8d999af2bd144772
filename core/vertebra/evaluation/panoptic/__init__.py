"""Panoptic segmentation: PQ, SQ and RQ from memory and from COCO's files."""

from vertebra.evaluation.panoptic.evaluator import PanopticEvaluator
from vertebra.evaluation.panoptic.files import panoptic_evaluate
from vertebra.evaluation.panoptic.quality import ClassQuality, GroupQuality, PanopticQuality

__all__ = ["ClassQuality", "GroupQuality", "PanopticEvaluator", "PanopticQuality", "panoptic_evaluate"]
