"""What dense and two-stage detectors share: anchors, matching, box coders, sampling, NMS and postprocessing."""

from vertebra._deprecation import former_names
from vertebra.detection.anchors import AnchorGenerator
from vertebra.detection.box_coders import Box2BoxTransform, Box2BoxTransformLinear
from vertebra.detection.matcher import BACKGROUND, IGNORE, Matcher
from vertebra.detection.nms import batched_nms
from vertebra.detection.postprocess import (
    Candidates,
    by_anchor,
    rescale_instances,
    sem_seg_postprocess,
    top_values,
    topk_candidates,
)
from vertebra.detection.rotated_nms import batched_nms_rotated, nms_rotated
from vertebra.detection.sampling import subsample_labels
from vertebra.detection.suppression import Suppression, suppress

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "AnchorGenerator",
    "Box2BoxTransform",
    "Box2BoxTransformLinear",
    "Candidates",
    "Matcher",
    "Suppression",
    "batched_nms",
    "batched_nms_rotated",
    "by_anchor",
    "nms_rotated",
    "rescale_instances",
    "sem_seg_postprocess",
    "subsample_labels",
    "suppress",
    "top_values",
    "topk_candidates",
]

__getattr__ = former_names(__name__)
