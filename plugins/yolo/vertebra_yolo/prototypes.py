"""Masks of a one-stage detector: maps of the whole image, which every detection adds up with weights of its own.

Source: Bolya et al., "YOLACT: Real-time Instance Segmentation", arXiv:1904.02689, sections 3.1 to 3.3 and figure 3:
a small network gives the prototypes, a mask is the sigmoid of their sum, cut to its box; learned is the binary cross
entropy of the pixels in the ground-truth box, divided by the box's area.
Letters: N images, Q prototypes of h x w cells, F matched pairs of an anchor and an object, T of them in an image, M
objects in the fullest image, n detections in an image.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Batch, Loss, ShapeSpec, chosen_level, describe_input, finest_first
from vertebra.models.layers import ConvNorm, NormName, msra_fill
from vertebra.models.losses import BinaryCrossEntropy, check_unreduced
from vertebra.structures import Instances, resize_masks_in_boxes, touched_cells

__all__ = ["MaskPairs", "MaskedRaw", "PrototypeMasks", "maps_of", "mask_cells"]

MAX_VALUES = 2**25
"""Mask pixels made together for one image, 128 MB of float32."""


class MaskPairs(NamedTuple):
    """Pairs of an anchor and an object, of all images."""

    coefficients: Tensor
    """(F, Q), as the network gives them."""
    image: Tensor
    """(F,) int64."""
    object: Tensor
    """(F,) int64, row of the ground truth."""
    most: int
    """Their number in the image that has the most of them."""


class MaskedRaw(NamedTuple):
    """What a head with masks computes from the features; without them it is `maps` alone."""

    maps: list[Tensor]
    """What a level's anchors answer apart from masks, (N, A * width, H_l, W_l), finest level first."""
    coefficients: list[Tensor]
    """(N, A * Q, H_l, W_l) a level, channel a * Q + i."""
    prototypes: Tensor
    """(N, Q, h, w)."""


def maps_of(raw: list[Tensor] | MaskedRaw) -> list[Tensor]:
    """The maps of a head with or without masks."""
    return raw.maps if isinstance(raw, MaskedRaw) else raw


class PrototypeMasks(nn.Module):
    """The prototypes, and what becomes of them with the coefficients of a detection head.

    Args:
        in_feature: level that the prototypes are made of; None: the finest.
        num_prototypes: Q, and the number of coefficients of a detection.
        channels: of the convolutions. The paper has 256.
        num_convs: 3x3 convolutions before the upsampling; one follows it.
        upsample: cells of a prototype per cell of the level, in both directions.
        norm: of the convolutions. Unlike the paper, which has none, batch norm.
        loss: on logits (N, T, h, w) and 0 or 1, unreduced. None: BinaryCrossEntropy.
        loss_weight: its factor. 0.2 is to a box gain of 0.05 what 6.125 is to 1.5 in the paper.
        max_pairs: maximum per image in a step; of more, this many are drawn. It bounds memory by T h w values an image.
        threshold: a pixel belongs to the object from this probability on.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_feature: str | None = None,
        num_prototypes: int = 32,
        channels: int = 256,
        num_convs: int = 3,
        upsample: int = 2,
        norm: NormName = "bn",
        loss: Loss | None = None,
        loss_weight: float = 0.2,
        max_pairs: int = 100,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        finest = finest_first("PrototypeMasks", input_shape)[0]
        self.in_feature = chosen_level("PrototypeMasks", input_shape, in_feature or finest)
        stride = input_shape[self.in_feature].stride
        if upsample < 1 or stride % upsample:
            raise ValueError(
                f"PrototypeMasks: upsample is {upsample}; it must divide {stride}, the stride of {self.in_feature}"
            )
        if min(num_prototypes, channels, max_pairs) < 1 or num_convs < 0:
            raise ValueError(
                "PrototypeMasks needs num_prototypes, channels and max_pairs of at least 1 and num_convs of at least "
                f"0, got {num_prototypes}, {channels}, {max_pairs} and {num_convs}"
            )
        if not 0 < threshold < 1:
            raise ValueError(f"PrototypeMasks: threshold is {threshold}; it must lie between 0 and 1")
        check_unreduced("PrototypeMasks", loss)
        widths = [input_shape[self.in_feature].channels, *[channels] * num_convs]
        self.convs = nn.Sequential(*(ConvNorm(c, channels, 3, norm=norm, relu=True) for c in widths[:-1]))
        self.refine = ConvNorm(widths[-1], channels, 3, norm=norm, relu=True)
        self.predictor = ConvNorm(channels, num_prototypes, 1, relu=True)  # ReLU: section 3.1
        for conv in (*self.convs, self.refine, self.predictor):
            msra_fill(conv)
        self.num_prototypes = num_prototypes
        self.upsample = upsample
        self.stride = stride // upsample
        self.loss = BinaryCrossEntropy(reduction="none") if loss is None else loss
        self.loss_weight = loss_weight
        self.max_pairs = max_pairs
        self.threshold = threshold

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, H_l, W_l)} to prototypes (N, Q, h, w)."""
        x = self.convs(features[self.in_feature])
        if self.upsample > 1:
            x = F.interpolate(x, scale_factor=float(self.upsample), mode="bilinear", align_corners=False)
        return self.predictor(self.refine(x))

    def weights(self, coefficients: Tensor) -> Tensor:
        """What the prototypes are multiplied with, from what the network gives: tanh, section 3.1."""
        return coefficients.tanh()

    def losses(self, prototypes: Tensor, pairs: MaskPairs, batch: Batch) -> dict[str, Tensor]:
        """`loss_mask`: the mean over the pairs whose object has a mask. No wait for the device."""
        index, used = _by_image(pairs, len(prototypes), self.max_pairs)  # (N, T) each
        weights = self.weights(pairs.coefficients[index])  # (N, T, Q)
        logits = torch.bmm(weights, prototypes.flatten(2).to(weights.dtype)).float()
        logits = logits.unflatten(2, prototypes.shape[2:])  # (N, T, h, w)
        size = (prototypes.shape[2], prototypes.shape[3])
        masks = mask_cells(batch, self.stride, size)  # (N, M, h, w)
        known = masks.flatten(2).any(dim=2)  # without a cell there is nothing to learn from: no mask, or a tiny one
        image, row = torch.arange(len(index), device=index.device)[:, None], pairs.object[index]
        boxes = batch.ground_truth("PrototypeMasks").boxes
        inside = touched_cells(boxes[image, row] / self.stride, *size)  # (N, T, h, w)
        area = inside.sum(dim=(2, 3)).clamp(min=1)
        each = (self.loss(logits, masks[image, row].float()) * inside).sum(dim=(2, 3)) / area  # (N, T)
        counts = used & known[image, row]
        return {"loss_mask": (each * counts).sum() / counts.sum().clamp(min=1) * self.loss_weight}

    def finish(self, found: Instances, prototypes: Tensor, frame: tuple[float, float]) -> Instances:
        """Detections with `pred_masks` (n, height, width) bool in place of `details`, their coefficients (n, Q).

        Args:
            found: in the requested size.
            prototypes: (Q, h, w) of the image.
            frame: (height, width) in pixels of that size which the prototypes cover.
        """
        coefficients, size = found.details, found.image_size
        masks = torch.zeros(len(found), *size, dtype=torch.bool, device=prototypes.device)
        pixels = max(size[0] * size[1], prototypes.shape[1] * prototypes.shape[2])
        step = max(1, MAX_VALUES // pixels)
        flat = prototypes.float().flatten(1)  # (Q, h * w)
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            seen = (self.weights(coefficients[part].float()) @ flat).sigmoid_().unflatten(1, prototypes.shape[1:])
            masks[part] = resize_masks_in_boxes(seen, found.pred_boxes.tensor[part], size, frame, self.threshold)
        found.remove("details")
        found.pred_masks = masks
        return found


def mask_cells(batch: Batch, stride: int, size: tuple[int, int]) -> Tensor:
    """The true masks on the prototypes' grid: (N, M, h, w) bool on the device, empty where an object has none.

    Drawn where the inputs lie, which is in the CPU's memory, and moved in one transfer.

    Args:
        stride: input pixels per cell.
        size: (h, w).
    Raises:
        DataError: an image with objects has no `gt_masks`.
    """
    valid = batch.ground_truth("PrototypeMasks").valid
    cells = torch.zeros(*valid.shape, *size, dtype=torch.bool)
    for number, (rows, sample) in enumerate(zip(cells, batch.inputs, strict=True)):
        instances = sample.get("instances")
        if instances is None or not len(instances):
            continue
        if not instances.has("gt_masks"):
            raise DataError(
                f"{describe_input(sample, number)}: has objects but no gt_masks, and a mask branch learns from them. "
                "The annotations need `segmentation`, and data.mask_format must not be none"
            )
        rows[: len(instances)] = instances.gt_masks.to_cells(stride, size)
    return cells.to(valid.device, non_blocking=True)


def _by_image(pairs: MaskPairs, num_images: int, limit: int) -> tuple[Tensor, Tensor]:
    """Rows of `pairs` side by side for each image, (N, T) int64, and which are any, (N, T) bool.

    T is that of the image with most pairs, at most `limit`; where an image has more, random ones.
    """
    image = pairs.image
    count, slots = len(image), min(pairs.most, limit)
    order = torch.arange(count, device=image.device)
    if pairs.most > limit:
        order = torch.randperm(count, device=image.device)
    by_image, sorting = image[order].sort(stable=True)
    order = order[sorting]
    slot = torch.arange(count, device=image.device) - torch.searchsorted(by_image, by_image)  # place within its image
    index = image.new_full((num_images, slots + 1), -1)
    index[by_image, slot.clamp(max=slots)] = order  # the last column takes what is too much
    index = index[:, :slots]
    return index.clamp(min=0), index >= 0
