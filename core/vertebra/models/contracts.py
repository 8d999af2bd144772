"""The contracts between the parts of a model: Backbone, Neck, Head, Loss, and what flows between them.

    images (N, 3, H, W) -> Backbone -> {name: (N, C, H/s, W/s)} -> Neck -> {...} -> Head(s) -> losses | outputs

Each contract names its kind in `component_kind`; the recipe builds an argument annotated with a contract
from a nested block out of that kind's registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vertebra.config.component import described
from vertebra.config.extra_fields import Geometry
from vertebra.config.injection import Labels
from vertebra.errors import PluginError
from vertebra.models.contract import Contract
from vertebra.models.given import check_signature
from vertebra.models.parameter_layers import parameter_layers

if TYPE_CHECKING:
    import numpy as np

    from vertebra.models.batch import Batch
    from vertebra.models.class_rows import ClassRows

__all__ = [
    "Backbone",
    "Head",
    "Loss",
    "Neck",
    "ShapeSpec",
    "check_features",
    "check_losses",
    "check_num_classes",
    "check_predictions",
    "named_tensors",
]


_DECISIVE = 4  # cells from which a stride can be told by a map's size


@dataclass(frozen=True)
class ShapeSpec:
    """What is known of a feature map before any image is seen.

    Args:
        channels: number of channels.
        stride: input pixels per cell, in both directions.
    """

    channels: int
    stride: int


class _Part(Contract):
    """What the parts of a model have in common: what their `forward` may ask for beside its first argument."""

    needs_fields: ClassVar[Mapping[str, Geometry]] = {}
    """Declared fields that it asks for, as {name: geometry}; data without one are an error before the first step. Those
    of the geometry `image` may be parameters of `forward`.
    """
    needs_inputs: ClassVar[Sequence[str]] = ()
    """Keys of the inputs, beside `image`, that are parameters of `forward`: each gets the list of the inputs' values.
    In training they are keys of the dataset's dicts, in prediction arguments: `predictor(image, text=...)`.
    """

    @classmethod
    def check_class(cls) -> None:
        """Called when the class is registered.

        Raises:
            PluginError: it does not keep to the contract.
        """
        check_signature(cls)


class Backbone(_Part):
    """Images to named feature maps.

    Subclasses implement `forward(images: (N, 3, H, W) float) -> dict[str, Tensor]` and `output_shape`.
    The model pads images so that H and W are multiples of `size_divisibility`. `forward` gets `batch`, `padding_mask`,
    a further image or an input where it has a parameter of that name, see `vertebra.models.given`.
    """

    component_kind: ClassVar[str] = "backbone"
    detectron2_names: ClassVar[Sequence[tuple[str, str]]] = ()
    """(regular expression, replacement) pairs from Detectron2's parameter names (whole names) to own ones."""
    torchvision_names: ClassVar[Sequence[tuple[str, str]]] = ()
    """The same from torchvision's parameter names."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; by default the coarsest stride."""
        return max(spec.stride for spec in self.output_shape().values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map that `forward` returns, finest first."""
        raise NotImplementedError

    def parameter_layers(self) -> list[list[str]]:
        """Names of its parameters, layer by layer from input to output, for rates that fall toward the input
        (`layer_decay`). By default in the order in which its modules are defined."""
        return parameter_layers(self)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalized images (N, 3, H, W) to {name: (N, C, H/s, W/s)}."""
        raise NotImplementedError


class Neck(_Part):
    """Feature maps in, feature maps out. Its constructor takes `input_shape: dict[str, ShapeSpec]` first. `forward` may
    have the further parameters of a backbone's."""

    component_kind: ClassVar[str] = "neck"
    detectron2_names: ClassVar[Sequence[tuple[str, str]]] = ()
    torchvision_names: ClassVar[Sequence[tuple[str, str]]] = ()

    @property
    def size_divisibility(self) -> int:
        """Height and width of the model's input must be multiples of this; 1 if the neck does not care."""
        return 1

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map that `forward` returns, finest first."""
        raise NotImplementedError

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {name: (N, C', H/s', W/s')}."""
        raise NotImplementedError


class Head(_Part):
    """A task on top of the features, in three parts so that the middle is plain tensors that export.

    Its constructor takes `input_shape: dict[str, ShapeSpec]` first and usually `num_classes: int`;
    both are injected, never written in a recipe (`num_classes` may be).

    `forward(features)` may have the further parameters of a backbone's, and `raw`: the raw outputs of the heads that
    `needs` names. One that requires `batch` cannot be exported.

    `DetectionHead` and `SemanticHead` have what such heads share. A detection head of another form keeps what its
    `predict` decides by as attributes of these names, as far as it has them, so that they can be changed after
    training: `score_threshold`, `nms_threshold`, `class_agnostic_nms` (bool) and `max_detections`.
    """

    component_kind: ClassVar[str] = "head"
    detectron2_names: ClassVar[Sequence[tuple[str, str]]] = ()
    torchvision_names: Sequence[tuple[str, str]] = ()
    """As of a backbone; an instance may have its own, where its place in the model decides."""
    task_outputs: ClassVar[Sequence[str]] = ()
    """Keys of the dicts that `predict` returns, as far as they are known beforehand."""
    labels: ClassVar[Labels] = "things"
    """Which of the dataset's classes the head has scores for, so which number is injected as `num_classes`: "things"
    (`thing_classes`), "stuff" (the semantic labels, which `stuff_classes` names, things among them where they are
    labels), or "all" (things, then the stuff that is not among them). Where a dataset has no classes of that sort, its
    others count. A head of heads leaves it as it is: each head inside says its own.
    """
    needs: Sequence[str] = ()
    """Names of heads of the model that run before this one: `forward` gets their raw outputs as `raw`, {name: ...}."""
    training_only: bool = False
    """An auxiliary head: it is trained with the others, and the model skips it in eval mode."""

    def forward(self, features: dict[str, Tensor]) -> Any:
        """Features to raw outputs: a tensor, or a dict, list or NamedTuple of tensors."""
        raise NotImplementedError

    def losses(self, raw: Any, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs and the batch's ground truth to named scalar losses, already weighted."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it has no method losses(raw, batch)")

    def predict(self, raw: Any, batch: Batch) -> list[dict]:
        """Raw outputs to one dict per image (`instances`, `sem_seg`, ...), in the original image's size."""
        raise NotImplementedError(f"{type(self).__name__} cannot predict: it has no method predict(raw, batch)")

    def draw(self, picture: np.ndarray, output: dict[str, Any], metadata: Any) -> np.ndarray | None:
        """A picture of predictions of a kind of its own, for `vertebra predict`.

        None, the default: `instances`, `sem_seg` and `panoptic_seg` are drawn as usual, and nothing else is.

        Args:
            picture: the image, (H, W, 3) uint8 RGB.
            output: what `predict` gave for it, on the CPU; `sem_seg` as labels (H, W).
            metadata: facts of the dataset, such as `thing_classes`.
        """
        return None

    def class_rows(self) -> dict[str, ClassRows]:
        """{name of a layer or parameter: which of its rows belong to which class}, so that `model.weights` of another
        list of classes keep what they know. Layers with exactly one row per class need no entry. Any module inside the
        head may have this method for its own layers. Where neither holds, the layer starts anew.
        """
        return {}

    def export_raw(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Raw outputs as named tensors, for the `raw` form of an exported graph.

        By default each tensor under the name of its field; those of a list are numbered (`logits_0`, `logits_1`).

        Args:
            raw: what `forward` returned.
            image_size: (H, W) of the network's padded input, in pixels. Both may be symbolic where the graph takes any
                size: compute with them, but compare them with nothing.
        """
        return dict(named_tensors(raw))

    def export_predictions(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Finished predictions as tensors of fixed rank, for the `end-to-end` form of an exported graph.

        Plain tensor code, without a loop over images and without values that depend on data in a shape (see
        `vertebra.export.suppressed` for NMS):

        - detection: `boxes` (N, D, 4) xyxy in input pixels, `scores` (N, D), `classes` (N, D) int64, best first; rows
          whose score is 0 only fill up;
        - semantic: `sem_seg` (N, H, W) int64, the best class of each input pixel.

        Args:
            raw, image_size: see `export_raw`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no end-to-end export: it has no method export_predictions(raw, image_size). "
            "The raw form works for every head: --form raw"
        )


class Loss(nn.Module):
    """A loss function as a part: called with predictions and targets, returns a scalar or an unreduced tensor."""

    component_kind: ClassVar[str] = "loss"
    on_boxes: ClassVar[bool] = False
    """Whether it compares boxes (P, 4) `xyxy` and not what a head regresses, as IoU losses do."""
    min_classes: ClassVar[int] = 1
    """With fewer class scores the loss is constant, so that nothing is learned: 2 where it takes their softmax."""


def check_num_classes(head: nn.Module, num_classes: int) -> None:
    """Raises ValueError where there is no class to score."""
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise ValueError(f"{type(head).__name__} needs at least one class, num_classes is {num_classes!r:.60}")


def check_features(features: Any, announced: Mapping[str, ShapeSpec], image_size: Sequence[int], owner: str) -> None:
    """What a backbone or neck returns against its contract: {name: (N, C, H/s, W/s)}, as its `output_shape()` says.

    Args:
        announced: that.
        image_size: (H, W) of the padded images.
        owner: for the message: which part, and where it is written.
    Raises:
        PluginError: it is something else; names the feature map.
    """
    if not isinstance(features, Mapping):
        raise PluginError(
            f"{owner}: forward must return a dict of feature maps, got {described(features)}.\n"
            "  Return {name: map, ...} with the names of output_shape()"
        )
    for name, spec in announced.items():
        found = features.get(name)
        if found is None:
            raise PluginError(
                f"{owner}: output_shape() announces {name!r}, but forward returns {', '.join(map(str, features))}.\n"
                "  Return a map for each announced name"
            )
        if not isinstance(found, Tensor) or found.dim() != 4:
            raise PluginError(f"{owner}: {name!r} must be a tensor (N, C, H, W), got {described(found)}")
        if found.shape[1] != spec.channels:
            raise PluginError(
                f"{owner}: {name!r} has {found.shape[1]} channels, but output_shape() announces {spec.channels}"
            )
    wrong = [
        (name, spec.stride) for name, spec in announced.items() if not _fits(features[name], image_size, spec.stride)
    ]
    # Levels with margins, as of unpadded convolutions, fit no stride, or by chance where they have few cells.
    if not all(_fits_another(features[name], image_size) for name, _ in wrong):
        return
    for name, stride in wrong:
        raise PluginError(
            f"{owner}: {name!r} has {tuple(features[name].shape[2:])} cells for images of {tuple(image_size)} pixels "
            f"(height, width), but output_shape() announces the stride {stride}.\n"
            "  The stride is the number of pixels per cell; boxes would be decoded at wrong places"
        )


def _fits(feature: Tensor, image_size: Sequence[int], stride: int) -> bool:
    """Whether a map has the cells of a stride, rounded up or down."""
    return all(
        side // stride <= cells <= -(-side // stride) for side, cells in zip(image_size, feature.shape[2:], strict=True)
    )


def _fits_another(feature: Tensor, image_size: Sequence[int]) -> bool:
    return min(feature.shape[2:]) >= _DECISIVE and any(_fits(feature, image_size, 2**n) for n in range(9))


def check_losses(losses: Any, owner: str, head: nn.Module | None = None) -> None:
    """What a head or model returns in training against its contract: {name: scalar that has a gradient}.

    A constant 0 is allowed (a batch without objects), and any constant of a head of which something is frozen.

    Args:
        owner: for the message: which head, and where it is written.
    Raises:
        PluginError: it is something else; names the loss.
    """
    if not isinstance(losses, Mapping):
        raise PluginError(
            f"{owner}: in training it must return a dict of named scalar losses, got {described(losses)}.\n"
            "  Return {'loss_cls': loss, ...}; the total is their sum"
        )
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            raise PluginError(
                f"{owner}: its loss {name!r} is {described(loss)}, expected a scalar tensor of floats.\n"
                "  Sum or average it over images and cells: loss.sum() / count"
            )
        learns = head is not None and head.training and torch.is_grad_enabled()
        if loss.requires_grad or head is None or not learns or float(loss) == 0:
            continue
        parameters = list(head.parameters())
        if parameters and all(parameter.requires_grad for parameter in parameters):
            raise PluginError(
                f"{owner}: its loss {name!r} does not depend on its parameters, so nothing is learned from it.\n"
                "  Is it detached from the outputs (.detach(), .item(), torch.tensor(loss), torch.no_grad())?"
            )


def check_predictions(found: Any, count: int, owner: str) -> list[dict[str, Any]]:
    """What `predict` of a head or model returns against its contract: one dict per image.

    Raises:
        PluginError: it is something else.
    """
    if isinstance(found, Sequence) and len(found) == count and all(isinstance(one, Mapping) for one in found):
        return list(found)
    what = f"{len(found)} values" if isinstance(found, Sequence) else described(found)
    raise PluginError(
        f"{owner}: predict must return one dict per image, such as {{'instances': ...}}; got {what} for {count} images"
    )


def named_tensors(raw: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tensor, NamedTuple, dict or list, however nested, each with the path to it as its name.

    A NamedTuple's fields and a dict's keys are names, a list's items are numbered; `_` joins them. A tensor by itself
    is `raw`.
    """
    if isinstance(raw, Tensor):
        yield name or "raw", raw
        return
    if hasattr(raw, "_asdict"):
        parts = raw._asdict().items()
    elif isinstance(raw, Mapping):
        parts = raw.items()
    elif isinstance(raw, (list, tuple)):
        parts = enumerate(raw)
    else:
        return  # a number or None is nothing that a graph could give
    for key, part in parts:
        yield from named_tensors(part, f"{name}_{key}" if name else str(key))
