"""What checks of a whole model need of its parts and of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vertebra.models import Backbone, Batch, Model, Neck

__all__ = ["feature_parts", "parts_of", "shake"]


def parts_of(batch: Batch, fields: Sequence[str]) -> dict[str, Any]:
    """All that heads share of a batch; `fields` are declared ones."""
    names = ("images", "named_images", "gt_boxes", "gt_classes", "gt_valid", "sem_seg", "padding_mask", "instances")
    shared = {name: getattr(batch, name) for name in (*names, "inputs")}
    return shared | {f"field({name!r})": batch.field(name) for name in fields}


def feature_parts(model: Any) -> list[Any]:
    """What gives the heads their features: the neck, else the backbone; of other models all of them."""
    if isinstance(model, Model):
        return [model.neck or model.backbone]
    return [one for one in model.modules() if isinstance(one, (Backbone, Neck))]


@torch.no_grad()
def shake(part: nn.Module, scale: float) -> None:
    """Adds noise to every parameter, so that scores spread and detections appear."""
    generator = torch.Generator().manual_seed(11)
    for parameter in part.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * scale)
