"""Model: a backbone, perhaps a neck, and one or more heads."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.models.base_model import IMAGENET_MEAN, IMAGENET_STD, BaseModel
from vertebra.models.batch import Batch
from vertebra.models.contracts import Backbone, Head, Neck, check_features, check_losses, check_predictions
from vertebra.models.given import Given, in_order
from vertebra.models.pixels import Pixels, PixelType

__all__ = ["Model"]

if TYPE_CHECKING:

    class _Heads(nn.ModuleDict):
        """A ModuleDict, of which type checkers know that its modules are heads."""

        def __getitem__(self, key: str) -> Head: ...
        def items(self) -> ItemsView[str, Head]: ...
        def values(self) -> ValuesView[Head]: ...

else:
    _Heads = nn.ModuleDict


class Model(BaseModel):
    """A backbone, perhaps a neck, and one or more heads: what a recipe's `model` without a `name` is.

    It normalizes images on the device, runs the parts, and nothing else.

    Args:
        backbone: images to features.
        neck: features to features; None: the heads see the backbone's.
        heads: tasks by name; the name is the prefix of the head's losses.
        pixel_mean: subtracted from the pixel values, per channel, in `pixel_order`; one for each channel of the images.
        pixel_std: the difference is divided by it, per channel, in `pixel_order`.
        pixel_order: order of the channels that the backbone was trained with. Inputs are always RGB;
            for "bgr" the model turns them round (Detectron2's MSRA weights are such).
        metadata: facts of the dataset whose classes the heads predict, such as `thing_classes`; datasets to evaluate on
            are matched with it by name, and checkpoints keep it. None: not known.
        dtype: of the images: `uint8` (values 0 to 255), `uint16` (as int32) or `float32`.
        images: further images that inputs have beside `image`, and how they are normalized.
    """

    not_in_recipe: ClassVar[tuple[str, ...]] = ("pixel_mean", "pixel_std", "pixel_order", "dtype", "images")
    heads: _Heads

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
        self.backbone = backbone
        self.neck = neck
        self.heads = _Heads(heads or {})
        self.metadata = metadata
        self._checked: set[str] = set()
        in_order(self.tasks)  # raises where there is none
        own = Pixels(tuple(pixel_mean), tuple(pixel_std), dtype)
        self.set_pixels({"image": own, **(images or {})}, pixel_order)

    @classmethod
    def recipe_problems(cls, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        heads = arguments.get("heads")
        if not heads:
            yield "heads", f"{'is missing' if heads is None else 'is empty'}, expected at least one head"
        for name in heads or ():
            if not name.isidentifier():
                yield (
                    "heads",
                    f"has a head called {name!r}, expected letters, digits and _ (it names losses and weights)",
                )

    @property
    def task_outputs(self) -> dict[str, tuple[str, ...]]:
        """By head that predicts: the keys of its predictions, as far as it declares them."""
        return {name: tuple(head.task_outputs) for name, head in self.heads.items() if not _training_only(head)}

    @property
    def tasks(self) -> dict[str, Any]:
        """The heads by name."""
        return dict(self.heads.items())

    def features(self, batch: Batch | Tensor, padding_mask: Tensor | None = None) -> dict[str, Tensor]:
        """What the heads see of a batch, or of normalized images (N, C, H, W)."""
        given = Given(batch, padding_mask)
        features = self._of(self.backbone, self.backbone(given.images, **given.to(self.backbone)), given.images)
        if self.neck is None:
            return features
        return self._of(self.neck, self.neck(features, **given.to(self.neck)), given.images)

    def _of(self, part: Backbone | Neck, features: Any, images: Tensor) -> dict[str, Tensor]:
        """Its feature maps, checked: their shapes in its first call alone, as those do not change by themselves."""
        name = "backbone" if part is self.backbone else "neck"
        first = name not in self._checked and not torch.compiler.is_compiling()
        if first or not isinstance(features, Mapping):
            where = f"model.{name} ({where_written(part, type(part).__name__)})"
            check_features(features, part.output_shape(), images.shape[-2:], where)
            self._checked.add(name)
        return features

    def compute(self, batch: Batch | Tensor, padding_mask: Tensor | None = None) -> dict[str, Any]:
        """A batch, or normalized images (N, C, H, W), to each head's raw outputs: the part that compiles and exports.

        Each part gets what its `forward` names, see `vertebra.models.given`. Heads for training only are skipped in
        eval mode.

        Args:
            padding_mask: of images alone: (N, H, W) bool, True where there is padding.
        """
        given = Given(batch, padding_mask)
        features = self.features(batch) if padding_mask is None else self.features(batch, padding_mask)
        for name in in_order(self.tasks):
            head = self.heads[name]
            if self.training or not _training_only(head):
                given.raw[name] = head(features, **given.to(head))
        return {name: given.raw[name] for name in self.heads if name in given.raw}

    def running_parts(self) -> list[tuple[nn.Module, str]]:
        heads = [head for head in self.heads.values() if not _training_only(head)]
        return [(part, "forward") for part in (self.backbone, self.neck, *heads) if part is not None]

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
            where = f"model.heads.{name} ({where_written(head, type(head).__name__)})"
            found = check_predictions(head.predict(raw[name], batch), len(batch), where)
            for target, output in zip(merged, found, strict=True):
                for key, value in output.items():
                    target[f"{name}/{key}" if key in target else key] = value
        return merged


def _training_only(head: nn.Module) -> bool:
    return getattr(head, "training_only", False)
