"""COCO: one reader of ground truth, and evaluation on columns with pycocotools' numbers to the last bit."""

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.data import CocoData, read_coco
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.numbers import CocoNumbers, coco_evaluate
from vertebra_eval.coco.operating_point import OperatingPoint, operating_point
from vertebra_eval.coco.params import COCO_TASKS, CocoParams
from vertebra_eval.coco.read_detections import read_detections
from vertebra_eval.coco.read_truth import read_ground_truth, truth_columns
from vertebra_eval.coco.result import CocoResult
from vertebra_eval.masks import MaskColumn

__all__ = [
    "COCO_TASKS",
    "CocoData",
    "CocoNumbers",
    "CocoParams",
    "CocoResult",
    "DetectionColumns",
    "GroundTruthColumns",
    "MaskColumn",
    "Matches",
    "OperatingPoint",
    "coco_evaluate",
    "evaluate_columns",
    "operating_point",
    "read_coco",
    "read_detections",
    "read_ground_truth",
    "truth_columns",
]
