"""What a center-and-offset head learns: a heat map of instance centers, and where each thing pixel's center is.

Source: Cheng et al., "Panoptic-DeepLab", arXiv:1911.10194, section 3.1: a Gaussian of deviation 8 pixels at the center
of mass, and the offset from every pixel of an instance to it. Built for the whole batch at once.
Letters: N images, T instances of all of them, H x W padded input pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Batch
from vertebra.structures import BitMasks, PolygonMasks

__all__ = ["CenterTargets", "center_targets", "instance_map"]


class CenterTargets(NamedTuple):
    """Targets at the input's resolution.

    Args:
        heat: (N, H, W) float32, 1 at an instance's center of mass, 0 far from all.
        offsets: (N, 2, H, W) float32 y, x in pixels, from a pixel to its instance's center; 0 outside instances.
        owned: (N, H, W) bool, pixels that belong to an instance.
        known: (N, H, W) bool, pixels of the images that are neither ignored nor of a crowd: where the heat counts.
    """

    heat: Tensor
    offsets: Tensor
    owned: Tensor
    known: Tensor


def center_targets(batch: Batch, sigma: float = 8.0, thing_labels: int = 0) -> CenterTargets:
    """Heat, offsets and where they count, out of the batch's `gt_masks` and `sem_seg`.

    A pixel that several masks claim belongs to the last of them. An instance that others cover whole has no center.
    Where the semantic label is a thing's and no instance is, a crowd lies: whether it has centers is not known.
    Args:
        thing_labels: semantic labels below this are things.
    Raises:
        DataError: no instances, or instances without masks.
    """
    owner, image, num_instances = instance_map(batch)  # (N, H, W): 0, or 1 + instance
    num_images, height, width = owner.shape
    flat = owner.flatten()
    area = flat.bincount(minlength=num_instances + 1)[1:]
    ys, xs = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float32, device=owner.device) for size in (height, width)), indexing="ij"
    )
    sums = [
        flat.bincount(weights=grid.expand_as(owner).flatten().double(), minlength=num_instances + 1)[1:]
        for grid in (ys, xs)
    ]
    centers = (torch.stack(sums, dim=1) / area.clamp(min=1)[:, None]).float()  # (T, 2) y, x
    table = F.pad(centers, (0, 0, 1, 0))[owner]  # (N, H, W, 2)
    owned = owner > 0
    offsets = (table - torch.stack([ys, xs], dim=-1)) * owned[..., None]
    present = area > 0
    heat = _splat(centers[present], image[present], (num_images, height, width), sigma)
    return CenterTargets(heat, offsets.permute(0, 3, 1, 2), owned, _known(batch, owner, thing_labels))


def instance_map(batch: Batch) -> tuple[Tensor, Tensor, int]:
    """(N, H, W) int64: 0, or 1 + the instance's number in the batch; (T,) image of each instance; and T."""
    if batch.instances is None:
        raise DataError(
            "a center-and-offset head learns from masks of instances, but no input of the batch has `instances`"
        )
    height, width = batch.padded_size
    masks, images = [], []
    for row, instances in enumerate(batch.instances):
        if len(instances) and not instances.has("gt_masks"):
            raise DataError(
                "a center-and-offset head learns from masks of instances, but the inputs have none; the dataset needs "
                "`segmentation`, and data.mask_format must not be none"
            )
        if len(instances):
            one = _bits(instances.gt_masks, instances.image_size, batch.device)
            masks.append(F.pad(one, (0, width - one.shape[2], 0, height - one.shape[1])))
            images += [row] * len(one)
    image = torch.tensor(images, dtype=torch.int64, device=batch.device)
    owner = torch.zeros((len(batch), height, width), dtype=torch.int64, device=batch.device)
    if masks:
        number, y, x = torch.cat(masks).nonzero(as_tuple=True)
        owner.view(-1).scatter_reduce_(0, (image[number] * height + y) * width + x, number + 1, "amax")
    return owner, image, len(images)


def _splat(centers: Tensor, image: Tensor, size: tuple[int, int, int], sigma: float) -> Tensor:
    """Gaussians at (T, 2) y, x, rounded to pixels, cut at 3 deviations; where they overlap, the higher counts."""
    height, width = size[1:]
    heat = torch.zeros(size, device=centers.device)
    if not len(centers):
        return heat
    reach = round(3 * sigma) + 1
    steps = torch.arange(-reach, reach + 1, device=centers.device)
    profile = torch.exp(-(steps.float() ** 2) / (2 * sigma**2))
    y, x = ((centers + 0.5).long()[:, axis, None] + steps for axis in (0, 1))  # (T, S) each
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    place = (image[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
    values = (profile[:, None] * profile).expand_as(place)
    heat.view(-1).scatter_reduce_(0, place.where(inside, 0).flatten(), (values * inside).flatten(), "amax")
    return heat


def _known(batch: Batch, owner: Tensor, thing_labels: int) -> Tensor:
    """Pixels inside the images; where there are semantic labels, those of stuff, or with an instance."""
    if batch.sem_seg is not None:
        return ((batch.sem_seg != 255) & (batch.sem_seg >= thing_labels)) | (owner > 0)
    inside = torch.zeros_like(owner, dtype=torch.bool)
    for row, (height, width) in enumerate(batch.image_sizes):
        inside[row, :height, :width] = True
    return inside


def _bits(masks: BitMasks | PolygonMasks, size: tuple[int, int], device: torch.device) -> Tensor:
    """(n, h, w) bool."""
    if not isinstance(masks, BitMasks):
        masks = BitMasks.from_polygon_masks(masks, *size)
    return masks.tensor.to(device)
