"""COCO evaluation on columns: pycocotools' numbers to the last bit, vectorized over images, thresholds and sizes."""

from vertebra.evaluation.cocoeval.columns import DetectionColumns, GroundTruthColumns
from vertebra.evaluation.cocoeval.evaluate import evaluate_columns
from vertebra.evaluation.cocoeval.masks import MaskColumn
from vertebra.evaluation.cocoeval.numbers import CocoNumbers, arrays_of_result, coco_evaluate
from vertebra.evaluation.cocoeval.params import COCO_TASKS, CocoParams
from vertebra.evaluation.cocoeval.read_detections import read_detections
from vertebra.evaluation.cocoeval.read_truth import read_ground_truth
from vertebra.evaluation.cocoeval.result import CocoResult, DetectionMatches

__all__ = [
    "COCO_TASKS",
    "CocoNumbers",
    "CocoParams",
    "CocoResult",
    "DetectionColumns",
    "DetectionMatches",
    "GroundTruthColumns",
    "MaskColumn",
    "arrays_of_result",
    "coco_evaluate",
    "evaluate_columns",
    "read_detections",
    "read_ground_truth",
]
