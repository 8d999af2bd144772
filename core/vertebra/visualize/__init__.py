"""Pictures of annotations and predictions: boxes, masks, keypoints, semantic and panoptic maps."""

from vertebra._deprecation import former_names
from vertebra.visualize.class_bars import draw_iou_bars
from vertebra.visualize.draw import draw_dataset_dict, draw_instances, draw_panoptic, skeleton_of
from vertebra.visualize.legend import with_legend, with_scale
from vertebra.visualize.palette import PALETTE, class_color
from vertebra.visualize.semantic import (
    draw_errors,
    draw_sem_seg,
    draw_sem_seg_overlay,
    draw_semantic_panel,
    draw_uncertainty,
    entropy_map,
)
from vertebra.visualize.sheets import contact_sheet, save_png, side_by_side
from vertebra.visualize.style import Style

__all__ = [
    "PALETTE",
    "Style",
    "class_color",
    "contact_sheet",
    "draw_dataset_dict",
    "draw_errors",
    "draw_instances",
    "draw_iou_bars",
    "draw_panoptic",
    "draw_sem_seg",
    "draw_sem_seg_overlay",
    "draw_semantic_panel",
    "draw_uncertainty",
    "entropy_map",
    "save_png",
    "side_by_side",
    "skeleton_of",
    "with_legend",
    "with_scale",
]

__getattr__ = former_names(__name__)
