"""COCO files as datasets: instances, keypoints, and the panoptic files beside them or alone."""

from vertebra.data.coco.instances import CocoFormat, register_coco_instances
from vertebra.data.coco.panoptic_format import CocoPanopticFormat

__all__ = ["CocoFormat", "CocoPanopticFormat", "register_coco_instances"]
