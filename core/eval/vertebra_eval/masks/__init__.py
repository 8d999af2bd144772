"""Masks as COCO writes them: polygons and run lengths, checked, kept in flat arrays, drawn by pycocotools."""

from vertebra_eval.masks.column import MaskColumn, MasksRead, mask_faults, read_masks
from vertebra_eval.masks.polygons import FARTHEST, clip_polygon, polygon_fault, within_reach
from vertebra_eval.masks.run_lengths import measure_run_lengths, run_length_fault

__all__ = [
    "FARTHEST",
    "MaskColumn",
    "MasksRead",
    "clip_polygon",
    "mask_faults",
    "measure_run_lengths",
    "polygon_fault",
    "read_masks",
    "run_length_fault",
    "within_reach",
]
