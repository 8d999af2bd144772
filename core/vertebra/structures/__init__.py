"""What is in an image: boxes, masks, keypoints and the instances that hold them. Detectron2's names and meaning."""

from vertebra._deprecation import former_names
from vertebra.structures.bit_masks import BitMasks
from vertebra.structures.box_mode import BoxMode
from vertebra.structures.boxes import Boxes, clip_to_size
from vertebra.structures.dense_map import DenseMap
from vertebra.structures.ignore_label import IGNORED_LABEL
from vertebra.structures.image_list import ImageList, padded_size
from vertebra.structures.instances import Instances
from vertebra.structures.keypoints import Keypoints, heatmaps_to_keypoints
from vertebra.structures.padding import pad_boxes, pad_rows
from vertebra.structures.pairwise import (
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from vertebra.structures.paste import (
    paste_masks_as_rle,
    paste_masks_in_image,
    resize_masks_in_boxes,
    touched_cells,
)
from vertebra.structures.polygon_masks import PolygonMasks
from vertebra.structures.rle import decode_rle, encode_masks, polygons_to_bitmask, segmentation_to_bitmask
from vertebra.structures.rotated_boxes import RotatedBoxes
from vertebra.structures.rotated_iou import matched_rotated_iou, pairwise_iou_rotated

__all__ = [
    "IGNORED_LABEL",
    "BitMasks",
    "BoxMode",
    "Boxes",
    "DenseMap",
    "ImageList",
    "Instances",
    "Keypoints",
    "PolygonMasks",
    "RotatedBoxes",
    "clip_to_size",
    "decode_rle",
    "encode_masks",
    "heatmaps_to_keypoints",
    "matched_pairwise_iou",
    "matched_rotated_iou",
    "pad_boxes",
    "pad_rows",
    "padded_size",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_iou_rotated",
    "pairwise_point_box_distance",
    "paste_masks_as_rle",
    "paste_masks_in_image",
    "polygons_to_bitmask",
    "resize_masks_in_boxes",
    "segmentation_to_bitmask",
    "touched_cells",
]

__getattr__ = former_names(__name__)
