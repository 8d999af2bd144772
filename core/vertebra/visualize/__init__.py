"""Pictures of annotations and predictions: boxes, masks, keypoints, semantic and panoptic maps."""

from vertebra.visualize.draw import (
    Style,
    draw_dataset_dict,
    draw_instances,
    draw_panoptic,
    draw_sem_seg,
    skeleton_of,
)
from vertebra.visualize.palette import PALETTE, class_color
from vertebra.visualize.sheets import contact_sheet, save_png, side_by_side

__all__ = [
    "PALETTE",
    "Style",
    "class_color",
    "contact_sheet",
    "draw_dataset_dict",
    "draw_instances",
    "draw_panoptic",
    "draw_sem_seg",
    "save_png",
    "side_by_side",
    "skeleton_of",
]
