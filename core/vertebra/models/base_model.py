"""BaseModel: the contract of whole models, and what all of them share: pixels, batches, the order of the parts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.config.extra_fields import Geometry
from vertebra.config.injection import Labels
from vertebra.config.sections import ModelSection
from vertebra.errors import DataError, PluginError
from vertebra.models.batch import Batch, describe_input, pad_ground_truth, pad_sem_seg
from vertebra.models.contract import Contract
from vertebra.models.contracts import check_losses, check_predictions
from vertebra.models.given import Given, check_signature, inputs_of
from vertebra.models.pixels import Pixels, checked_image

if TYPE_CHECKING:
    import numpy as np

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "BaseModel"]

# Means and deviations of ImageNet's RGB values, as torchvision's weights were trained with, times 255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
_CONTAINERS = (nn.ModuleDict, nn.ModuleList)


class BaseModel(Contract):
    """From lists of input dicts to losses or predictions: Detectron2's meta architecture.

    `Model`, of a backbone, a neck and heads, is the usual one. Another one derives from this class, is registered in
    `MODELS`, and says in three methods what it computes; data, training, evaluation, prediction and checkpoints are as
    for any model:

        @MODELS.register()
        class Mine(BaseModel):
            def __init__(self, num_classes: int, width: int = 64) -> None: ...
            def network(self, images): ...       # plain tensors in, plain tensors out
            def losses(self, raw, batch): ...    # {name: scalar}
            def predict(self, raw, batch): ...   # one dict per image

    An argument annotated with a component (`backbone: Backbone`, `head: Head`, `student: Model`) is built from a nested
    block. A backbone or a neck gives its `output_shape()` as `input_shape` to the parts that are built after it, in the
    order of the arguments. The framework gives `num_classes`, `metadata` and `in_channels` (of the images) to a
    constructor that has them.
    """

    component_kind: ClassVar[str] = "model"
    not_in_recipe: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that no recipe writes: they are for Python."""
    labels: ClassVar[Labels] = "things"
    """Which classes are counted in `num_classes`, see `Head.labels`."""
    needs_fields: ClassVar[Mapping[str, Geometry]] = {}
    """Declared fields that it asks for, see `Head.needs_fields`."""
    needs_inputs: ClassVar[Sequence[str]] = ()
    """Keys of the inputs that `network` takes, see `Head.needs_inputs`."""
    task_outputs: Any = ()
    """Keys of the dicts that `predict` returns, as far as they are known beforehand: a sequence of names."""

    metadata: Any = None
    """Facts of the dataset that the model is for, such as `thing_classes`; None: not known."""
    pixels: dict[str, Pixels]
    """How `image`, and further images by name, are normalized."""
    pixel_order: Literal["rgb", "bgr"]
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.set_pixels({"image": Pixels(IMAGENET_MEAN, IMAGENET_STD)})

    @classmethod
    def check_class(cls) -> None:
        """Called when the class is registered.

        Raises:
            PluginError: `network` requires a parameter that nothing gives, or the constructor has one that a recipe
                cannot write.
        """
        check_signature(cls, "network")
        taken = {item.name for item in fields(ModelSection)} - {ModelSection.component, *cls.not_in_recipe}
        for name in inspect.signature(cls.__init__).parameters.keys() & taken:
            raise PluginError(
                f"model {cls.__qualname__}: its argument {name!r} is a key of the section `model`; rename it"
            )

    @classmethod
    def recipe_problems(cls, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(argument, "is ..., expected ...") for what no annotation can tell of a recipe's arguments."""
        yield from ()

    def set_pixels(self, pixels: Mapping[str, Pixels], pixel_order: Literal["rgb", "bgr"] = "rgb") -> None:
        """How inputs are normalized, as a recipe says it in `model.pixel_mean`, `data.image`, ...

        Args:
            pixels: of `image`, and of each further image by name.
            pixel_order: of the channels that the model was trained with; inputs are always RGB.
        """
        if pixel_order not in ("rgb", "bgr"):
            raise ValueError(f"pixel_order is {pixel_order!r}; it must be 'rgb' or 'bgr'")
        if pixel_order == "bgr" and pixels["image"].channels != 3:
            raise ValueError(
                f"pixel_order is 'bgr', which is for 3 channels; pixel_mean has {pixels['image'].channels} values"
            )
        self.pixel_order = pixel_order
        self.pixels = dict(pixels)
        # No part of the weights, as in Detectron2: they belong to the recipe.
        for name, one in self.pixels.items():
            for kind, values in (("pixel_mean", one.mean), ("pixel_std", one.std)):
                numbers = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
                self.register_buffer(_buffer(kind, name), numbers, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is, and its batches go."""
        return self.pixel_mean.device

    @property
    def size_divisibility(self) -> int:
        """Batches are padded so that H and W are multiples of this, in input pixels: by default of what its backbones,
        necks and models ask for."""
        return math.lcm(*(getattr(part, "size_divisibility", 1) for part in _members(self)))

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
    def tasks(self) -> dict[str, Any]:
        """What predicts, by name: heads; of a whole model it is the model itself, without a name."""
        return {"": self}

    @property
    def output_keys(self) -> set[str]:
        """Keys of its predictions, as far as its heads, or it itself, declare them."""
        tasks = (task for task in self.tasks.values() if not getattr(task, "training_only", False))
        return {key for task in tasks for key in task.task_outputs}

    @property
    def extra_inputs(self) -> dict[str, bool]:
        """{name: whether it is required} of what inputs have beside images for its parts, outside of training."""
        return inputs_of(self.modules())

    def running_parts(self) -> list[tuple[nn.Module, str]]:
        """The parts that give raw outputs outside of training, each with the method that does."""
        return [(self, "network")]

    def parts(self) -> dict[str, nn.Module]:
        """The modules that it consists of, by path: `backbone`, `heads.boxes`; those of models inside it too."""
        return dict(_parts(self, ""))

    def forward(
        self, inputs: list[dict[str, Any]], step: Any | None = None
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Returns a dict of scalar losses in training mode, and one dict of predictions per image otherwise.

        A model with a method `training_step(batch, step)` owns its training: it calls `step.minimize(name, loss)`, see
        `vertebra.engine.Step`, and returns what is logged.

        Args:
            inputs: one dict per image: `image` (3, h, w) uint8 RGB, or C
                channels of the model's type; where known `height`, `width` of the output,
                `instances` and `sem_seg` for training. `content_size` (height, width) where the image is padded on the
                right and below already: the part of it that is not padding.
            step: in a training of a model that owns its step.
        Raises:
            PluginError: a loss is not a scalar, or is detached from the parameters.
        """
        batch = self.make_batch(inputs)
        if step is not None:
            return self.training_step(batch, step)  # type: ignore[operator]  # only a model that has it is given a step
        raw = self.compute(batch)
        if not self.training:
            return check_predictions(self.predict(raw, batch), len(batch), self._called)
        losses = self.losses(raw, batch)
        check_losses(losses, self._called, self)
        return losses

    @property
    def _called(self) -> str:
        return where_written(self, f"model {type(self).__name__}")

    def network(self, images: Tensor) -> Any:
        """Normalized images (N, C, H, W) to raw outputs: a tensor, or a dict, list or NamedTuple of tensors. The part
        that exports."""
        raise NotImplementedError(f"{type(self).__name__} computes nothing: it has no method network(images)")

    def compute(self, batch: Batch | Tensor, padding_mask: Tensor | None = None) -> Any:
        """Raw outputs of a batch, or of normalized images (N, C, H, W).

        `network` gets `batch`, `padding_mask`, further images and inputs where it has parameters of these names, see
        `vertebra.models.given`.

        Args:
            padding_mask: of images alone: (N, H, W) bool, True where there is padding. A part that requires it is an
                error without.
        """
        given = Given(batch, padding_mask)
        return self.network(given.images, **given.to(self, "network"))

    def losses(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs and the batch's ground truth to named scalar losses, already weighted; the total is their sum."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it has no method losses(raw, batch)")

    def predict(self, raw: Any, batch: Batch) -> list[dict[str, Any]]:
        """Raw outputs to one dict per image (`instances`, `sem_seg`, ...), in the original image's size."""
        raise NotImplementedError(f"{type(self).__name__} cannot predict: it has no method predict(raw, batch)")

    def export_raw(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Raw outputs as named tensors, for the `raw` form of an exported graph, see `Head.export_raw`. A model that
        has it says that its `network` exports."""
        raise NotImplementedError(self._no_export("raw", "export_raw"))

    def export_predictions(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Finished predictions as tensors, for the `end-to-end` form, see `Head.export_predictions`."""
        raise NotImplementedError(self._no_export("end-to-end", "export_predictions"))

    def draw(self, picture: np.ndarray, output: dict[str, Any], metadata: Any) -> np.ndarray | None:
        """A picture of predictions of a kind of its own, see `Head.draw`."""
        return None

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
            size_divisibility=multiple,
        )

    def normalize(self, images: Tensor, name: str = "image", out: Tensor | None = None) -> Tensor:
        """Pixel values (..., C, h, w) to what the model was trained with: the one place that does so.

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
                        f"{describe_input(inputs[row], row)}: {name!r} has {tuple(image.shape[1:])} pixels (height, "
                        f"width), but 'image' has {size}; both go through the same transforms"
                    )
            named[name] = self._normalize(images, padded_size, name)
        return named

    def _no_export(self, form: str, method: str) -> str:
        raw_works = type(self).export_raw is not BaseModel.export_raw
        hint = ". Its raw form works: --form raw" if form != "raw" and raw_works else ""
        return f"{type(self).__name__} has no {form} export: it has no method {method}(raw, image_size){hint}"


def _members(module: nn.Module) -> Iterator[nn.Module]:
    """Its children, and those in lists and dicts of modules."""
    for child in module.children():
        yield from _members(child) if isinstance(child, _CONTAINERS) else (child,)


def _parts(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        yield from _parts(child, inner) if isinstance(child, (BaseModel, *_CONTAINERS)) else ((inner, child),)


def _buffer(kind: str, name: str) -> str:
    return kind if name == "image" else f"{kind}_{name}"
