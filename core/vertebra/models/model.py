"""Model: a backbone, perhaps a neck, and one or more heads; from lists of input dicts to losses or predictions."""

from __future__ import annotations

import inspect
import math
from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.errors import DataError
from vertebra.models.batch import Batch, describe, pad_ground_truth, pad_sem_seg
from vertebra.models.contracts import Backbone, Head, Neck, check_losses
from vertebra.models.pixels import Pixels, PixelType, checked_image

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
        pixel_mean: subtracted from the pixel values, per channel, in `pixel_order`; one for each channel of the images.
        pixel_std: the difference is divided by it, per channel, in `pixel_order`.
        pixel_order: order of the channels that the backbone was trained with. Inputs are always RGB;
            for "bgr" the model turns them round (Detectron2's MSRA weights are such).
        dtype: of the images: `uint8` (values 0 to 255), `uint16` (as int32) or `float32`.
        images: further images that inputs have beside `image`, and how they are normalized.
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
        dtype: PixelType = "uint8",
        images: Mapping[str, Pixels] | None = None,
    ) -> None:
        super().__init__()
        if pixel_order not in ("rgb", "bgr"):
            raise ValueError(f"pixel_order is {pixel_order!r}; it must be 'rgb' or 'bgr'")
        if pixel_order == "bgr" and len(pixel_mean) != 3:
            raise ValueError(f"pixel_order is 'bgr', which is for 3 channels; pixel_mean has {len(pixel_mean)} values")
        self.backbone = backbone
        self.neck = neck
        self.heads = _Heads(heads or {})
        self.pixel_order = pixel_order
        self.metadata = metadata
        self.pixels = {"image": Pixels(tuple(pixel_mean), tuple(pixel_std), dtype), **(images or {})}
        # No part of the weights, as in Detectron2: they belong to the recipe.
        for name, one in self.pixels.items():
            for kind, values in (("pixel_mean", one.mean), ("pixel_std", one.std)):
                numbers = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
                self.register_buffer(_buffer(kind, name), numbers, persistent=False)
        takes = inspect.signature(backbone.forward).parameters
        self.seen_by_backbone = [name for name in self.pixels if name != "image" and name in takes]

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
            inputs: one dict per image: `image` (3, h, w) uint8 RGB, or C
                channels of the model's type; where known `height`, `width` of the output,
                `instances` and `sem_seg` for training. `content_size` (height, width) where the image is padded on the
                right and below already: the part of it that is not padding.
        """
        batch = self.make_batch(inputs)
        raw = self.compute(batch)
        return self.losses(raw, batch) if self.training else self.predict(raw, batch)

    def make_batch(self, inputs: list[dict[str, Any]]) -> Batch:
        """Input dicts to padded tensors on the model's device; images travel as uint8."""
        images = [checked_image(sample, row, self.pixels["image"]) for row, sample in enumerate(inputs)]
        if not images:
            raise DataError("the batch has no inputs; a model needs at least one image")
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        multiple = self.size_divisibility
        height, width = (math.ceil(max(side) / multiple) * multiple for side in zip(*sizes, strict=True))
        padded = (height, width)
        boxes, classes, valid = pad_ground_truth(inputs, self.device)
        return Batch(
            images=self._normalize(images, padded, "image"),
            named_images=self._named_images(inputs, sizes, padded),
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

    def features(self, batch: Batch | Tensor) -> dict[str, Tensor]:
        """What the heads see of a batch, or of normalized images (N, C, H, W). A backbone whose `forward` has a
        parameter with the name of a further image gets it."""
        images, named = (batch.images, batch.named_images) if isinstance(batch, Batch) else (batch, {})
        features = self.backbone(images, **{name: named[name] for name in self.seen_by_backbone})
        return features if self.neck is None else self.neck(features)

    def compute(self, batch: Batch | Tensor) -> dict[str, Any]:
        """A batch, or normalized images (N, C, H, W), to each head's raw outputs: the part that compiles and exports.

        Heads for training only are skipped in eval mode.
        """
        features = self.features(batch)
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

    def normalize(self, images: Tensor, name: str = "image", out: Tensor | None = None) -> Tensor:
        """Pixel values (..., C, h, w) to what the backbone was trained with: the one place that does so.

        Args:
            name: of the image.
            out: takes the result.
        """
        mean, std = self.get_buffer(_buffer("pixel_mean", name)), self.get_buffer(_buffer("pixel_std", name))
        if self.pixel_order == "bgr" and images.shape[-3] == 3 and name == "image":
            blue_first = [images[..., channel : channel + 1, :, :] for channel in (2, 1, 0)]
            images = torch.cat(blue_first, dim=-3)  # slices, which every runtime of a graph knows, rather than a flip
        return torch.sub(images.float(), mean, out=out).div_(std) if out is not None else (images.float() - mean) / std

    def _normalize(self, images: list[Tensor], padded_size: tuple[int, int], name: str) -> Tensor:
        """Images (C, h, w) of any sizes to (N, C, H, W) float32: on the device, zero where padded."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (len(images), self.pixels[name].channels, *padded_size)
        padded = torch.empty(shape, device=self.device, memory_format=order).zero_()
        for slot, image in zip(padded, images, strict=True):
            part = slot[:, : image.shape[1], : image.shape[2]]
            self.normalize(image.to(self.device, non_blocking=True), name, out=part)
        return padded

    def _named_images(
        self, inputs: list[dict[str, Any]], sizes: list[tuple[int, int]], padded_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        named = {}
        for name in self.pixels.keys() - {"image"}:
            images = [checked_image(sample, row, self.pixels[name], name) for row, sample in enumerate(inputs)]
            for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
                if image.shape[1:] != size:
                    raise DataError(
                        f"{describe(inputs[row], row)}: {name!r} has {tuple(image.shape[1:])} pixels (height, width), "
                        f"but 'image' has {size}; both go through the same transforms"
                    )
            named[name] = self._normalize(images, padded_size, name)
        return named


def _buffer(kind: str, name: str) -> str:
    return kind if name == "image" else f"{kind}_{name}"


def _training_only(head: nn.Module) -> bool:
    return getattr(head, "training_only", False)
