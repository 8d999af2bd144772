"""Any timm model that gives feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vertebra.errors import SetupError
from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra_eval.nearest import nearest

if TYPE_CHECKING:
    from vertebra.models.batch import Batch

__all__ = ["TimmBackbone"]

_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Options by which timm's models take images of any size, rather than of the size of their pretraining: vision
transformers resample their position embeddings, windowed ones recompute their masks, others take any size by
themselves. A model refuses an option that it does not know."""


class TimmBackbone(Backbone):
    """A timm model built with `features_only`; features `stage0`, `stage1`, ... by their place in timm's list.

    Images may have any size where timm's model can take them: plain vision transformers resample their position
    embeddings. Attention reaches everywhere and position embeddings (DINOv3's rotary ones too) are stretched over all
    there is, so that padding would change every feature of an image. Transformers of patches therefore see each image
    at its size, padded as it would be alone, those of one size together; features beyond it are 0. What an image gives
    is the same alone, in any batch and in an exported graph.

    Args:
        model: timm's name, such as "convnext_tiny" or "vit_small_patch16_dinov3.lvd1689m".
        pretrained: start from timm's weights, downloaded from their hub.
        out_indices: which of timm's features to return; None: all. A plain vision transformer's (all of one stride) are
            its last blocks'; `SimpleFeaturePyramid` makes levels of the last.
        by_image_size: images are run by their sizes, as said above; False: the padded batch as a whole. None: for
            models with a `patch_embed` (ViT, DINOv2, DINOv3, Swin, ...) and without batch normalization, which needs
            the whole batch.
        options: further arguments of `timm.create_model`, such as `drop_path_rate: 0.1`, or `patch_size: 16`, which
            resamples the weights of a model of another patch size (DINOv2's 14 fits no pyramid).
    """

    def __init__(
        self,
        model: str,
        pretrained: bool = False,
        out_indices: Sequence[int] | None = None,
        by_image_size: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        try:
            import timm  # optional, and slow to import
        except ImportError as err:
            raise SetupError("backbone timm needs the package timm.\n  Fix it: pip install 'vertebra[timm]'") from err
        if not timm.is_model(model.split(".")[0]) and "/" not in model:
            near = nearest(model.split(".")[0], timm.list_models())
            raise ValueError(f"timm has no model {model!r}. Nearest: {', '.join(near) or 'none'}")
        arguments = options if out_indices is None else {**options, "out_indices": tuple(out_indices)}
        try:
            self.model = _create(timm.create_model, model, pretrained, arguments)
        except (RuntimeError, TypeError, AssertionError, IndexError, AttributeError) as err:
            raise ValueError(
                f"timm cannot make {model!r} with features_only, out_indices {out_indices} and options {options}: {err}"
            ) from err
        info: Any = self.model.feature_info
        places = info.out_indices
        self._shapes = {
            f"stage{place}": ShapeSpec(channels=channels, stride=int(stride))
            for place, channels, stride in zip(places, info.channels(), info.reduction(), strict=True)
        }
        self._channels_last = "NHWC" in str(getattr(self.model, "output_fmt", ""))  # Swin gives such maps
        if by_image_size is None:
            normed = any(isinstance(one, _BatchNorm) for one in self.model.modules())
            by_image_size = hasattr(getattr(self.model, "model", self.model), "patch_embed") and not normed
        self.by_image_size = by_image_size

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor, batch: Batch | None = None) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)}; H and W are padded with zeros to what the model divides by.

        Without a `batch` the images have no padding of their own.
        """
        multiple = self.size_divisibility
        images = _grown(images, *(side + -side % multiple for side in images.shape[-2:]))
        if batch is None or not self.by_image_size:
            return self._features(images)
        multiple = math.lcm(multiple, batch.size_divisibility)
        places: dict[tuple[int, int], list[int]] = {}
        for place, (height, width) in enumerate(batch.image_sizes):
            places.setdefault((height + -height % multiple, width + -width % multiple), []).append(place)
        if list(places) == [tuple(images.shape[-2:])]:
            return self._features(images)
        maps: dict[str, list[Tensor]] = {name: [images] * len(images) for name in self._shapes}
        for (height, width), chosen in places.items():
            alike = self._features(torch.stack([images[place, :, :height, :width] for place in chosen]))
            for name, found in alike.items():
                stride = self._shapes[name].stride
                padded = _grown(found, *(side // stride for side in images.shape[-2:]))
                for place, one in zip(chosen, padded.unbind(), strict=True):
                    maps[name][place] = one
        return {name: torch.stack(ones) for name, ones in maps.items()}

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.model(images)
        if self._channels_last:
            maps = [one.permute(0, 3, 1, 2) for one in maps]
        return dict(zip(self._shapes, maps, strict=True))


def _create(create: Any, model: str, pretrained: bool, arguments: dict[str, Any]) -> Any:
    """The model, for images of any size where it can be told to be."""
    for options in _ANY_SIZE:
        try:
            return create(model, pretrained=pretrained, features_only=True, **{**options, **arguments})
        except TypeError as err:
            if not any(name in str(err) and name not in arguments for name in options):
                raise
    raise AssertionError("the last option asks nothing of a model")


def _grown(maps: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W), padded with zeros on the right and below."""
    bottom, right = height - maps.shape[-2], width - maps.shape[-1]
    return F.pad(maps, (0, right, 0, bottom)) if bottom or right else maps
