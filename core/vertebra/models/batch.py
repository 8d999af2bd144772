"""Batch: what a model sees of a list of inputs, as padded tensors on the model's device.

Letters: N images, M ground truth objects in the fullest image, H x W padded input pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.models.batch_fields import pad_field
from vertebra.structures import IGNORED_LABEL, Boxes, Instances, pad_boxes, pad_rows

__all__ = ["IGNORED_LABEL", "Batch", "GroundTruth", "pad_ground_truth", "pad_sem_seg"]


class GroundTruth(NamedTuple):
    """The ground-truth objects of all images of a batch; the fields are those of `Batch`."""

    boxes: Tensor
    """(N, M, 4), `gt_boxes`."""
    classes: Tensor
    """(N, M), `gt_classes`."""
    valid: Tensor
    """(N, M), `gt_valid`."""


@dataclass
class Batch:
    """Images of different sizes side by side in one tensor, with their ground truth where there is any.

    Args:
        images: (N, C, H, W) float, normalized, then padded with zeros on the right and below.
        image_sizes: (height, width) of each image before padding, in input pixels.
        original_sizes: (height, width) requested for the outputs; the image's size where an input names none.
        inputs: the dicts it was made of.
        gt_boxes: (N, M, 4) float32 xyxy in input pixels, 0 where padded; None if no input has `instances`.
            M is at least 1, so that a maximum over the objects always exists.
        gt_classes: (N, M) int64, 0 where padded.
        gt_valid: (N, M) bool, False where padded.
        named_images: further images by name, normalized and padded as `images`.
        size_divisibility: each image alone would be padded to a multiple of it in height and width.
        sem_seg: (N, H, W) int64, 255 where a pixel is ignored or padded; None if no input has `sem_seg`.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]
    inputs: list[dict[str, Any]]
    gt_boxes: Tensor | None = None
    gt_classes: Tensor | None = None
    gt_valid: Tensor | None = None
    sem_seg: Tensor | None = dataclasses.field(default=None, repr=False)
    named_images: dict[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    size_divisibility: int = 1
    _fields: dict[str, Tensor] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.image_sizes)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of `images`, in input pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.images.device

    @cached_property
    def padding_mask(self) -> Tensor:
        """(N, H, W) bool on the device, True where `images` has padding."""
        height, width = self.padded_size
        sizes = torch.tensor(self.image_sizes).to(self.device, non_blocking=True)
        below = torch.arange(height, device=self.device) >= sizes[:, :1]
        right = torch.arange(width, device=self.device) >= sizes[:, 1:]
        return below[:, :, None] | right[:, None, :]

    @cached_property
    def instances(self) -> list[Instances] | None:
        """Each image's Instances (`gt_boxes`, `gt_classes`, and `gt_masks`, `gt_keypoints` where given), on the device.

        Moved to the device on first use, so models that only need `gt_boxes` do not pay for masks.
        None if no input has `instances`; an input without any counts as an image without objects.
        """
        given = [sample.get("instances") for sample in self.inputs]
        if all(one is None for one in given):
            return None
        return [
            _no_objects(size).to(self.device) if one is None else one.to(self.device)
            for one, size in zip(given, self.image_sizes, strict=True)
        ]

    def field(self, name: str) -> Tensor:
        """A declared field of the ground truth (`data.fields`), padded, on the device.

        Of instances, row m belongs to `gt_boxes[:, m]` and is 0 where `gt_valid` is False: `box` (N, M, 4) float32
        xyxy, `rotated_box` (N, M, 5), `points` (N, M, K, 3), `mask` (N, M, H, W) bool, `scalar` (N, M) or (N, M, D)
        float32 or int64. Of the image: `dense_map` (N, H, W) or (N, C, H, W), padded with its `fill`; others without
        the dimension M. Made on first use.

        Raises:
            DataError: the inputs do not have it.
        """
        if name not in self._fields:
            length = 1 if self.gt_valid is None else self.gt_valid.shape[1]
            self._fields[name] = pad_field(name, self.inputs, length, self.padded_size).to(self.device)
        return self._fields[name]

    def ground_truth(self, head: str) -> GroundTruth:
        """`gt_boxes`, `gt_classes` and `gt_valid`, for a head that needs them.

        Args:
            head: name of the head, for the error message.
        Raises:
            DataError: no input has `instances`.
        """
        if self.gt_boxes is None or self.gt_classes is None or self.gt_valid is None:
            raise _no_ground_truth(head)
        return GroundTruth(self.gt_boxes, self.gt_classes, self.gt_valid)

    def ground_truth_instances(self, head: str) -> list[Instances]:
        """`instances`, for a head that needs them; arguments and error as of `ground_truth`."""
        if self.instances is None:
            raise _no_ground_truth(head)
        return self.instances


def pad_ground_truth(
    inputs: Sequence[dict[str, Any]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
    """Boxes (N, M, 4), classes (N, M) and validity (N, M) of all images; three times None without `instances`.

    Filled on the CPU and moved in one transfer each. An input without `instances` has no objects.
    """
    objects = [_boxes_and_classes(sample, row) for row, sample in enumerate(inputs)]
    if all(one is None for one in objects):
        return None, None, None
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    rows = [nothing if one is None else one for one in objects]
    most = max(1, *(len(boxes) for boxes, _ in rows))
    boxes, valid = pad_boxes([boxes for boxes, _ in rows], length=most)
    classes, _ = pad_rows([classes for _, classes in rows], length=most)
    return boxes.to(device), classes.to(device), valid.to(device)


def pad_sem_seg(
    inputs: Sequence[dict[str, Any]],
    image_sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    device: torch.device,
) -> Tensor | None:
    """Labels (N, H, W) int64, 255 beyond each image and for an input without labels; None if none has any."""
    if all(sample.get("sem_seg") is None for sample in inputs):
        return None
    labels = torch.full((len(inputs), *padded_size), IGNORED_LABEL, dtype=torch.int64, device=device)
    for row, (sample, (height, width)) in enumerate(zip(inputs, image_sizes, strict=True)):
        given = sample.get("sem_seg")
        if given is None:
            continue
        if tuple(given.shape) != (height, width):
            raise DataError(
                f"{describe_input(sample, row)}: sem_seg has shape {tuple(given.shape)}, but the image is {height} x "
                f"{width} (height x width). Transform image and labels together."
            )
        labels[row, :height, :width] = given.to(device, non_blocking=True)
    return labels


def describe_input(sample: Any, row: int) -> str:
    """Where an input came from, for an error message."""
    name = sample.get("file_name") if isinstance(sample, dict) else None
    return f"input {row} of the batch" + (f" ({name})" if name else "")


def _boxes_and_classes(sample: dict[str, Any], row: int) -> tuple[Tensor, Tensor] | None:
    """One input's boxes (m, 4) xyxy and classes (m,) int64, or None if it has no `instances`."""
    instances = sample.get("instances")
    if instances is None:
        return None
    if not (instances.has("gt_boxes") and instances.has("gt_classes")):
        raise DataError(
            f"{describe_input(sample, row)}: ground truth needs the fields gt_boxes and gt_classes, but its instances "
            f"have {', '.join(instances.get_fields()) or 'no fields'}"
        )
    return instances.gt_boxes.tensor.cpu(), instances.gt_classes.to("cpu", torch.int64)


def _no_ground_truth(head: str) -> DataError:
    return DataError(
        f"{head} learns from ground-truth boxes, but no input of the batch has `instances`; "
        "the dicts of a dataset to train on need the key `annotations` ([] where an image shows nothing)"
    )


def _no_objects(size: tuple[int, int]) -> Instances:
    return Instances(size, gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
