"""What is exported of a model: images in, named tensors out, with normalization, padding and cropping inside.

Letters: N images, H x W pixels of the input, H' x W' the same padded to multiples of the model's `size_divisibility`.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.errors import ExportError
from vertebra.models import BaseModel
from vertebra.models.fuse import fuse_conv_bn
from vertebra.models.given import further_parameters, not_exportable

__all__ = ["FORMS", "ExportGraph", "Form", "PixelRange"]

Form = Literal["raw", "end-to-end"]
FORMS = get_args(Form)
PixelRange = Literal[1, 255]


class ExportGraph(nn.Module):
    """A model as one function of a tensor, on the CPU, in float32, without what only training needs.

    Args:
        model: is copied, and stays as it is.
        form: `raw` gives what `export_raw` of the heads, or of a whole model, does; `end-to-end` what their
            `export_predictions` does.
        pixel_range: the highest value of the input's pixels, 1 or 255; images of 16 bits or floats go in as read.
        fused: fold batch norms into convolutions.
    """

    def __init__(self, model: BaseModel, form: Form, pixel_range: PixelRange = 1, *, fused: bool = True) -> None:
        super().__init__()
        if form not in FORMS:
            raise ExportError(f"the form {form!r} is unknown; known are: {', '.join(FORMS)}")
        if pixel_range not in (1, 255):
            raise ExportError(f"the pixel range is {pixel_range!r}; it must be 1 (values 0 to 1) or 255 (0 to 255)")
        dtype = model.pixels["image"].dtype
        if dtype != "uint8" and pixel_range != 1:
            raise ExportError(
                f"the pixel range is for images of 8 bits; this model takes {dtype} values as they are read"
            )
        if len(model.pixels) > 1:
            raise ExportError(
                f"the model takes several images ({', '.join(model.pixels)}); an exported graph has one "
                "input, so it cannot be exported"
            )
        self.model = copy.deepcopy(model).to("cpu").float().eval()
        self.model.channels_last = False
        if fused:
            fuse_conv_bn(self.model)
        self.form = form
        self.heads = [name for name, task in model.tasks.items() if not getattr(task, "training_only", False)]
        if not self.heads:
            raise ExportError("the model has no heads, so it has no outputs to export")
        if problem := next(not_exportable(model.running_parts()), None):
            raise ExportError(f"the model cannot be exported: {problem}")
        asked = (further_parameters(getattr(type(part), method)) for part, method in model.running_parts())
        self.masks = any("padding_mask" in names for names in asked)
        self.scale = 255 / pixel_range if dtype == "uint8" else 1.0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """RGB images (N, 3, H, W), or with the model's channels, float32 to named outputs, in this input's pixels."""
        height, width = images.shape[-2:]
        images = self._padded(self.model.normalize(images if self.scale == 1 else images * self.scale))
        padded_size = images.shape[-2], images.shape[-1]
        raw = self.model.compute(images, **({"padding_mask": _padding(images, height, width)} if self.masks else {}))
        outputs: dict[str, Tensor] = {}
        for name in self.heads:
            found = _within_image(self._outputs_of(name, raw[name] if name else raw, padded_size), height, width)
            for key, value in found.items():
                outputs[f"{name}_{key}" if key in outputs else key] = value
        return outputs

    def _padded(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H', W'), zero on the right and below, as the model pads its batches."""
        multiple = self.model.size_divisibility
        # Written so, a tracer sees that the sides are multiples, and with that what becomes of them further down.
        right, below = ((side + multiple - 1) // multiple * multiple - side for side in images.shape[:1:-1])
        known = isinstance(right, int) and isinstance(below, int)
        return images if known and right == below == 0 else F.pad(images, (0, right, 0, below))

    def _outputs_of(self, name: str, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        task = self.model.tasks[name]
        return task.export_raw(raw, image_size) if self.form == "raw" else task.export_predictions(raw, image_size)


def _padding(images: Tensor, height: int, width: int) -> Tensor:
    """(N, H', W') bool, True beyond the image's H and W."""
    below = torch.arange(images.shape[-2], device=images.device) >= height
    right = torch.arange(images.shape[-1], device=images.device) >= width
    return (below[:, None] | right).expand(images.shape[0], -1, -1)


def _within_image(outputs: dict[str, Tensor], height: int, width: int) -> dict[str, Tensor]:
    """Maps without the padding; boxes clipped to the image, and the score 0 for one that is empty then."""
    cropped = {key: _cropped(value, height, width) for key, value in outputs.items() if key.startswith("sem_seg")}
    outputs = {**outputs, **cropped}
    if {"boxes", "scores"} <= outputs.keys():
        x, y = outputs["boxes"][..., 0::2].clamp(0, width), outputs["boxes"][..., 1::2].clamp(0, height)
        outputs["boxes"] = torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)
        has_area = (x[..., 1] > x[..., 0]) & (y[..., 1] > y[..., 0])
        outputs["scores"] = outputs["scores"] * has_area
    return outputs


def _cropped(maps: Tensor, height: int, width: int) -> Tensor:
    """(..., H', W') to its upper left (..., H, W)."""
    if isinstance(height, int) and isinstance(width, int):
        return maps[..., :height, :width]
    for axis, side in ((-2, height), (-1, width)):  # not a slice: a tracer could not prove that H is at most H'
        maps = maps.index_select(axis, torch.arange(side, device=maps.device))
    return maps
