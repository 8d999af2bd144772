"""COCO evaluation on columns: pycocotools' numbers to the last bit, vectorized over images, thresholds and sizes."""

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.masks import MaskColumn
from vertebra_eval.coco.numbers import CocoNumbers, arrays_of_result, coco_evaluate
from vertebra_eval.coco.params import COCO_TASKS, CocoParams
from vertebra_eval.coco.read_detections import read_detections
from vertebra_eval.coco.read_truth import read_ground_truth
from vertebra_eval.coco.result import CocoResult, DetectionMatches

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
