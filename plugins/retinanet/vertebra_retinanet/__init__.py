"""RetinaNet (arXiv:1708.02002) for Vertebra: the head `RetinaNetHead` and its recipes."""

from vertebra_retinanet.head import RetinaNetHead, RetinaNetRaw

__all__ = ["RetinaNetHead", "RetinaNetRaw"]
