"""The mask branch: for each region a small map of which of its pixels belong to the object.

Source: He et al., "Mask R-CNN", arXiv:1703.06870, section 3 and figure 4.
Letters: T regions, F of them with an object, C channels, K classes, S cells along each side of a mask.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Batch, Loss, ShapeSpec, describe_input
from vertebra.models.layers import ConvNorm, NormName, msra_fill, normal_fill
from vertebra.models.losses import BinaryCrossEntropy
from vertebra.structures import BitMasks, PolygonMasks
from vertebra_rcnn.mask_output import BitmapOutput, MaskOutput
from vertebra_rcnn.pooling import RegionPooler, ROIPooler
from vertebra_rcnn.regions import Regions

__all__ = ["MaskBranch", "ROIMasks", "mask_targets"]


class MaskBranch(nn.Module):
    """Gives each region with an object a mask in the frame of its box."""

    component_kind: ClassVar[str] = "part"
    pooler: RegionPooler
    output: MaskOutput

    def losses(self, regions_seen: Tensor, regions: Regions, batch: Batch) -> dict[str, Tensor]:
        """Named scalars, already weighted, from pooled regions (F, C, S, S); all of them have an object."""
        raise NotImplementedError

    def predict(self, regions_seen: Tensor, classes: Tensor) -> Tensor:
        """Pooled regions (F, C, S, S) and their classes (F,) to probabilities (F, S', S')."""
        raise NotImplementedError


class ROIMasks(MaskBranch):
    """Convolutions, one transposed convolution that doubles the resolution, and a map for each class.

    Of the last layer only the map of each region's own class is computed: the others are neither trained nor shown.

    Args:
        pooler: None: ROIPooler with 14 x 14 cells.
        num_conv: 3x3 convolutions before the transposed one.
        conv_dim: their channels.
        norm: after each of them, see `get_norm`.
        class_agnostic: one map for all classes.
        loss: on logits and 0 or 1, (F, S, S) each, to a scalar. None: BinaryCrossEntropy().
        loss_weight: its factor.
        output: what predicted masks become. None: BitmapOutput().
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        pooler: RegionPooler | None = None,
        num_conv: int = 4,
        conv_dim: int = 256,
        norm: NormName = "",
        class_agnostic: bool = False,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        output: MaskOutput | None = None,
    ) -> None:
        super().__init__()
        self.pooler = ROIPooler(input_shape, 14) if pooler is None else pooler
        channels = self.pooler.channels
        self.num_conv = num_conv
        for number in range(1, num_conv + 1):
            self.add_module(f"mask_fcn{number}", ConvNorm(channels, conv_dim, 3, norm=norm, relu=True))
            msra_fill(getattr(self, f"mask_fcn{number}"))
            channels = conv_dim
        self.deconv = nn.ConvTranspose2d(channels, conv_dim, kernel_size=2, stride=2)
        msra_fill(self.deconv)
        self.class_agnostic = class_agnostic
        self.predictor = nn.Conv2d(conv_dim, 1 if class_agnostic else num_classes, kernel_size=1)
        normal_fill(self.predictor, std=0.001)
        self.loss = BinaryCrossEntropy() if loss is None else loss
        self.loss_weight = loss_weight
        self.output = BitmapOutput() if output is None else output

    def losses(self, regions_seen: Tensor, regions: Regions, batch: Batch) -> dict[str, Tensor]:
        """`loss_mask`, the mean over all cells of all regions."""
        logits = self.logits(regions_seen, regions.classes)
        target = mask_targets(regions, batch, logits.shape[-1]).to(logits.dtype)
        return {"loss_mask": self.loss(logits, target) * self.loss_weight}

    def predict(self, regions_seen: Tensor, classes: Tensor) -> Tensor:
        return self.logits(regions_seen, classes).float().sigmoid()

    def hidden(self, regions_seen: Tensor) -> Tensor:
        """(F, C, S, S) to (F, conv_dim, 2 S, 2 S), what the last layer sees."""
        x = regions_seen
        for number in range(1, self.num_conv + 1):
            x = getattr(self, f"mask_fcn{number}")(x)
        return F.relu(self.deconv(x))

    def logits(self, regions_seen: Tensor, classes: Tensor) -> Tensor:
        """(F, C, S, S) and classes (F,) to (F, 2 S, 2 S): each region's map of its class."""
        hidden = self.hidden(regions_seen)
        if self.class_agnostic:
            return self.predictor(hidden)[:, 0]
        weight, bias = self.predictor.weight[:, :, 0, 0][classes], self.predictor.bias  # (F, C), (K,)
        maps = torch.bmm(weight[:, None], hidden.flatten(2))[:, 0]  # (F, 4 S^2)
        if bias is not None:
            maps = maps + bias[classes][:, None].to(hidden.dtype)
        return maps.view(-1, *hidden.shape[2:])


def mask_targets(regions: Regions, batch: Batch, size: int) -> Tensor:
    """What of each region's true mask lies in its box: (F, size, size) bool.

    Raises:
        DataError: an image with objects has no `gt_masks`.
    """
    targets = torch.zeros(len(regions.classes), size, size, dtype=torch.bool, device=regions.rois.device)
    every = batch.ground_truth_instances("a mask branch")
    for number, instances in enumerate(every):  # masks of different images differ in size and kind
        rows = (regions.image == number).nonzero().flatten()
        if not len(rows):
            continue
        if not instances.has("gt_masks"):
            raise DataError(
                f"{describe_input(batch.inputs[number], number)}: has objects but no gt_masks, and a mask branch "
                "learns from them. The annotations need `segmentation`, and data.mask_format must not be none"
            )
        targets[rows] = _crop(instances.gt_masks, regions.row[rows], regions.boxes[rows], size)
    return targets


def _crop(masks: PolygonMasks | BitMasks, row: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Masks `row` (F,) in boxes (F, 4), with no copy of a mask for each box that shows it."""
    if isinstance(masks, BitMasks):
        return masks.crop_and_resize(boxes, size, rows=row)
    return masks[row].crop_and_resize(boxes, size)
