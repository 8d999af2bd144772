"""Model: a backbone, perhaps a neck, and one or more heads; from lists of input dicts to losses or predictions."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.errors import DataError
from vertebra.models.batch import Batch, describe, pad_ground_truth, pad_sem_seg
from vertebra.models.contracts import Backbone, Head, Neck, check_losses

__all__ = ["Model"]

# Means and deviations of ImageNet's RGB values, as torchvision's weights were trained with, times 255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


if TYPE_CHECKING:

    class _Heads(nn.ModuleDict):
        """A ModuleDict, of which type checkers know that its modules are heads."""

        def __getitem__(self, key: str) -> Head: ...
        def items(self) -> ItemsView[str, Head]: ...
        def values(self) -> ValuesView[Head]: ...

else:
    _Heads = nn.ModuleDict


class Model(nn.Module):
    """Normalizes images on the device, runs the parts, and nothing else.

    Args:
        backbone: images to features.
        neck: features to features; None: the heads see the backbone's.
        heads: tasks by name; the name is the prefix of the head's losses.
        pixel_mean: subtracted from the pixel values (0 to 255), per channel, in `pixel_order`.
        pixel_std: the difference is divided by it, per channel, in `pixel_order`.
        pixel_order: order of the channels that the backbone was trained with. Inputs are always RGB;
            for "bgr" the model turns them round (Detectron2's MSRA weights are such).
        metadata: facts of the dataset whose classes the heads predict, such as `thing_classes`; datasets to evaluate on
            are matched with it by name, and checkpoints keep it. None: not known.
    """

    heads: _Heads
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck | None = None,
        heads: Mapping[str, Head] | None = None,
        *,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        pixel_order: Literal["rgb", "bgr"] = "rgb",
        metadata: Any | None = None,
    ) -> None:
        super().__init__()
        if pixel_order not in ("rgb", "bgr"):
            raise ValueError(f"pixel_order is {pixel_order!r}; it must be 'rgb' or 'bgr'")
        if len(pixel_mean) != 3 or len(pixel_std) != 3 or min(pixel_std) <= 0:
            raise ValueError(f"pixel_mean {pixel_mean} and pixel_std {pixel_std} need 3 values each, pixel_std above 0")
        self.backbone = backbone
        self.neck = neck
        self.heads = _Heads(heads or {})
        self.pixel_order = pixel_order
        self.metadata = metadata
        # No part of the weights, as in Detectron2: they belong to the recipe.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is, and its batches go."""
        return self.pixel_mean.device

    @property
    def size_divisibility(self) -> int:
        """Batches are padded so that H and W are multiples of this, in input pixels."""
        return math.lcm(self.backbone.size_divisibility, 1 if self.neck is None else self.neck.size_divisibility)

    @property
    def channels_last(self) -> bool:
        """Whether weights and batches lie in memory as NHWC; assigning it converts the weights."""
        kernels = (p for p in self.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2:].numel() > 1)
        kernel = next(kernels, None)
        return kernel is not None and not kernel.is_contiguous()

    @channels_last.setter
    def channels_last(self, wanted: bool) -> None:
        self.to(memory_format=torch.channels_last if wanted else torch.contiguous_format)

    @property
    def task_outputs(self) -> dict[str, tuple[str, ...]]:
        """By head that predicts: the keys of its predictions, as far as it declares them."""
        return {name: tuple(head.task_outputs) for name, head in self.heads.items() if not _training_only(head)}

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Returns a dict of losses {"<head>/<loss>": scalar} in training mode, and one dict of predictions per image
        otherwise.

        Args:
            inputs: one dict per image: `image` (3, h, w) uint8 RGB; where known `height`, `width` of the output,
                `instances` and `sem_seg` for training. `content_size` (height, width) where the image is padded on the
                right and below already: the part of it that is not padding.
        """
        batch = self.make_batch(inputs)
        raw = self.compute(batch.images)
        return self.losses(raw, batch) if self.training else self.predict(raw, batch)

    def make_batch(self, inputs: list[dict[str, Any]]) -> Batch:
        """Input dicts to padded tensors on the model's device; images travel as uint8."""
        images = [_image(sample, row) for row, sample in enumerate(inputs)]
        if not images:
            raise DataError("the batch has no inputs; a model needs at least one image")
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        multiple = self.size_divisibility
        height, width = (math.ceil(max(side) / multiple) * multiple for side in zip(*sizes, strict=True))
        padded = (height, width)
        boxes, classes, valid = pad_ground_truth(inputs, self.device)
        return Batch(
            images=self._normalize(images, padded),
            image_sizes=[tuple(sample.get("content_size", size)) for sample, size in zip(inputs, sizes, strict=True)],
            original_sizes=[
                (int(sample.get("height", h)), int(sample.get("width", w)))
                for sample, (h, w) in zip(inputs, sizes, strict=True)
            ],
            inputs=inputs,
            gt_boxes=boxes,
            gt_classes=classes,
            gt_valid=valid,
            sem_seg=pad_sem_seg(inputs, sizes, padded, self.device),
        )

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Normalized images (N, 3, H, W) to what the heads see."""
        features = self.backbone(images)
        return features if self.neck is None else self.neck(features)

    def compute(self, images: Tensor) -> dict[str, Any]:
        """Normalized images (N, 3, H, W) to each head's raw outputs: the part that compiles and exports.

        Heads for training only are skipped in eval mode.
        """
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items() if self.training or not _training_only(head)}

    def losses(self, raw: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Raw outputs of `compute` to {"<head>/<loss>": scalar}.

        Raises:
            PluginError: a head returns something else, or a loss that is detached from its parameters.
        """
        found: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            if name in raw:
                losses = head.losses(raw[name], batch)
                check_losses(losses, f"model.heads.{name} ({where_written(head, type(head).__name__)})", head)
                found |= {f"{name}/{key}": loss for key, loss in losses.items()}
        return found

    def predict(self, raw: dict[str, Any], batch: Batch) -> list[dict[str, Any]]:
        """Raw outputs of `compute` to one dict per image. A key taken by an earlier head becomes "<head>/<key>"."""
        merged: list[dict[str, Any]] = [{} for _ in range(len(batch))]
        for name, head in self.heads.items():
            if _training_only(head):
                continue
            for target, output in zip(merged, head.predict(raw[name], batch), strict=True):
                for key, value in output.items():
                    target[f"{name}/{key}" if key in target else key] = value
        return merged

    def _normalize(self, images: list[Tensor], padded_size: tuple[int, int]) -> Tensor:
        """Images (3, h, w) of any sizes to (N, 3, H, W) float32: on the device, zero where padded."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        out = torch.empty((len(images), 3, *padded_size), device=self.device, memory_format=order).zero_()
        for slot, image in zip(out, images, strict=True):
            image = image.to(self.device, non_blocking=True)
            if self.pixel_order == "bgr":
                image = image.flip(0)
            part = slot[:, : image.shape[1], : image.shape[2]]
            torch.sub(image.float(), self.pixel_mean, out=part).div_(self.pixel_std)
        return out


def _training_only(head: nn.Module) -> bool:
    return getattr(head, "training_only", False)


def _image(sample: Any, row: int) -> Tensor:
    """The checked image of an input, as a plain tensor (3, h, w) with values 0 to 255."""
    where = describe(sample, row)
    if not isinstance(sample, dict) or sample.get("image") is None:
        has = ", ".join(map(repr, sample)) if isinstance(sample, dict) else f"a {type(sample).__name__}"
        raise DataError(f"{where}: an input is a dict with the key 'image', but this one is/has {has}")
    image = sample["image"]
    if not isinstance(image, Tensor):
        raise DataError(
            f"{where}: 'image' is a {type(image).__name__}; it must be a uint8 tensor (3, height, width). "
            "From an array (height, width, 3): torch.from_numpy(array).permute(2, 0, 1)"
        )
    if image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
        turned = image.dim() == 3 and image.shape[-1] == 3
        raise DataError(
            f"{where}: 'image' has shape {tuple(image.shape)}; it must be (3, height, width)"
            + (": image.permute(2, 0, 1) turns it" if turned else ", RGB, without a batch dimension, not empty")
        )
    if image.is_floating_point():
        highest = float(image.amax())
        if not 1 < highest < 256:
            raise DataError(
                f"{where}: 'image' is {image.dtype} with values up to {highest:g}; values must run from 0 to 255, the "
                "model normalizes them. For an image in 0..1: (image * 255).round().to(torch.uint8)"
            )
    elif image.dtype != torch.uint8:
        raise DataError(f"{where}: 'image' is {image.dtype}; it must be uint8, values 0 to 255")
    return image.as_subclass(Tensor)
