"""Regions as the box branch has made them: the C4 form, where all branches share a ResNet's last stage."""

from __future__ import annotations

from torch import Tensor

from vertebra_rcnn.pooling import RegionPooler

__all__ = ["SharedBoxFeatures", "check_shared"]


class SharedBoxFeatures(RegionPooler):
    """Stands for a pooler in a mask or keypoint branch: the branch gets what the box branch's region head gives.

    Args:
        channels: of those maps; a res5 of a ResNet-50 or deeper has 2048.
        resolution: cells along each side; half of what the box branch pools.
    """

    def __init__(self, channels: int = 2048, resolution: int = 7) -> None:
        self.channels = channels
        self.resolution = resolution

    def __call__(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        raise ValueError("SharedBoxFeatures pools nothing itself: the head takes the box branch's features instead")


def check_shared(branch: object | None, boxes: object) -> None:
    """Raises ValueError where a branch shares the box branch's features and these are not as it expects."""
    pooler = getattr(branch, "pooler", None)
    if not isinstance(pooler, SharedBoxFeatures):
        return
    head = getattr(boxes, "head", None)
    gives = getattr(head, "out_channels", None), getattr(head, "out_resolution", None)
    if gives != (pooler.channels, pooler.resolution):
        what = "no maps" if gives[1] is None else f"{gives[0]} channels of {gives[1]} x {gives[1]} cells"
        raise ValueError(
            f"{type(branch).__name__} shares the box branch's features and expects {pooler.channels} channels of "
            f"{pooler.resolution} x {pooler.resolution} cells, but {type(boxes).__name__} gives {what}"
        )
    own = next(vars(cls) for cls in type(boxes).__mro__ if "losses" in vars(cls) or "losses_of" in vars(cls))
    if "losses_of" not in own:
        raise ValueError(
            f"{type(boxes).__name__} has its own `losses`, which is not called where {type(branch).__name__} shares "
            "its features: give it `losses_of(region_features, regions)` as well"
        )
