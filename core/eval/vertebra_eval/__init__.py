"""Results to numbers: COCO, LVIS, Pascal VOC and panoptic evaluation, without torch.

Names are imported on first use.
"""

from __future__ import annotations

from vertebra_eval._lazy import lazy_exports

_HOMES = {
    "vertebra_eval.coco": (
        "CocoData",
        "CocoNumbers",
        "CocoParams",
        "DetectionColumns",
        "GroundTruthColumns",
        "coco_evaluate",
        "read_coco",
    ),
    "vertebra_eval.crowdpose": ("crowdpose_evaluate",),
    "vertebra_eval.errors": ("DataError", "VertebraError"),
    "vertebra_eval.findings": ("Finding",),
    "vertebra_eval.lvis": ("lvis_evaluate",),
    "vertebra_eval.panoptic.files": ("panoptic_evaluate",),
    "vertebra_eval.voc": ("voc_evaluate",),
}

__getattr__, __dir__, __all__ = lazy_exports(__name__, _HOMES)
