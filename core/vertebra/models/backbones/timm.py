"""Any timm model that gives feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from vertebra.errors import SetupError
from vertebra.models.contracts import Backbone, ShapeSpec
from vertebra_eval.nearest import nearest

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """A timm model built with `features_only`; features `stage0`, `stage1`, ... by their place in timm's list.

    Args:
        model: timm's name, such as "convnext_tiny" or "resnet18.a1_in1k".
        pretrained: start from timm's weights, downloaded from their hub.
        out_indices: which of timm's features to return; None: all.
        options: further arguments of `timm.create_model`, such as `drop_path_rate: 0.1`.
    """

    def __init__(
        self,
        model: str,
        pretrained: bool = False,
        out_indices: Sequence[int] | None = None,
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
            self.model = timm.create_model(model, pretrained=pretrained, features_only=True, **arguments)
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

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H / s, W / s)}; H and W are padded with zeros to what the model divides by."""
        multiple = self.size_divisibility
        bottom, right = (-side % multiple for side in images.shape[-2:])
        if bottom or right:
            images = F.pad(images, (0, right, 0, bottom))
        features = {}
        for (name, spec), feature in zip(self._shapes.items(), self.model(images), strict=True):
            if feature.shape[1] != spec.channels and feature.shape[-1] == spec.channels:  # NHWC, as Swin gives it
                feature = feature.permute(0, 3, 1, 2)
            features[name] = feature
        return features
