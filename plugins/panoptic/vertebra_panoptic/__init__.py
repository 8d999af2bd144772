"""Panoptic segmentation for Vertebra: Panoptic FPN (arXiv:1901.02446) and Panoptic-DeepLab (arXiv:1911.10194).

`PanopticHead` is built from any `things` head and any `stuff` head that fit, and a part that merges what they find.
"""

from vertebra_panoptic.centers import CenterOffsetHead
from vertebra_panoptic.combine import CombineInstances
from vertebra_panoptic.combined_ids import panoptic_ids
from vertebra_panoptic.grouping import GroupCenters
from vertebra_panoptic.head import PanopticHead
from vertebra_panoptic.merge import Merge
from vertebra_panoptic.sem_seg import PanopticDeepLabSemSegHead
from vertebra_panoptic.sem_seg_fpn import SemSegFPNHead

__all__ = [
    "CenterOffsetHead",
    "CombineInstances",
    "GroupCenters",
    "Merge",
    "PanopticDeepLabSemSegHead",
    "PanopticHead",
    "SemSegFPNHead",
    "panoptic_ids",
]
