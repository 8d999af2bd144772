"""How the numbers of one box are to be read, and conversion between the ways.

Names, values and meaning are those of Detectron2's `BoxMode`, so that its dataset dicts mean the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["BoxMode"]

Box = TypeVar("Box", list, tuple, np.ndarray, Tensor)


@unique
class BoxMode(IntEnum):
    """Meaning of a box's 4 numbers (5 in `XYWHA_ABS`). `_ABS` is in pixels, `_REL` in parts of the image's size."""

    XYXY_ABS = 0
    """(x0, y0, x1, y1), end exclusive."""
    XYWH_ABS = 1
    """(x0, y0, width, height), as in COCO files."""
    XYXY_REL = 2
    """(x0, y0, x1, y1), each in [0, 1]. No conversion: it needs the image's size."""
    XYWH_REL = 3
    """(x0, y0, width, height), each in [0, 1]. No conversion: it needs the image's size."""
    XYWHA_ABS = 4
    """(center x, center y, width, height, angle in degrees, counter-clockwise)."""

    @staticmethod
    def convert(box: Box, from_mode: BoxMode, to_mode: BoxMode) -> Box:
        """One box or many, from one mode to another; the input is left as it is.

        `XYWHA_ABS` to `XYXY_ABS` gives the smallest upright box around the rotated one. Whole numbers stay
        whole between the upright modes and become floating point where `XYWHA_ABS` takes part.

        Args:
            box: 4 or 5 numbers as a list or tuple, or an array or tensor (..., 4) or (..., 5).
        Returns:
            The same type as `box`; `box` itself if the modes are equal.
        Raises:
            ValueError: a wrong number of numbers, or a conversion that does not exist (from or to `_REL`).
        """
        if from_mode == to_mode:
            return box
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        values = _as_tensor(box)
        expected = 5 if from_mode == BoxMode.XYWHA_ABS else 4
        if values.ndim == 0 or values.shape[-1] != expected:
            raise ValueError(
                f"BoxMode.convert: a box in mode {from_mode.name} has {expected} numbers, "
                f"got {type(box).__name__} of shape {tuple(values.shape)}"
            )
        try:
            function = _CONVERSIONS[from_mode, to_mode]
        except KeyError:
            known = ", ".join(f"{a.name} -> {b.name}" for a, b in _CONVERSIONS)
            raise ValueError(
                f"BoxMode.convert: no conversion {from_mode.name} -> {to_mode.name} (there are: {known})."
                " Multiply relative boxes by the image's size first"
            ) from None
        converted = function(values)
        if isinstance(box, Tensor):
            return converted
        if isinstance(box, np.ndarray):
            return converted.numpy()
        return type(box)(converted.tolist())


def _as_tensor(box: Sequence[float] | np.ndarray | Tensor) -> Tensor:
    if isinstance(box, Tensor):
        return box
    if isinstance(box, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(box))
    if not isinstance(box, (list, tuple)):
        raise ValueError(f"BoxMode.convert takes a list, tuple, array or tensor, got {type(box).__name__}")
    whole = all(isinstance(value, int) for value in box)
    return torch.tensor(box, dtype=torch.int64 if whole else torch.float64)


def _xyxy_to_xywh(box: Tensor) -> Tensor:
    return torch.cat((box[..., :2], box[..., 2:] - box[..., :2]), dim=-1)


def _xywh_to_xyxy(box: Tensor) -> Tensor:
    return torch.cat((box[..., :2], box[..., :2] + box[..., 2:]), dim=-1)


def _xywha_to_xyxy(box: Tensor) -> Tensor:
    center, size, angle = box.double().split((2, 2, 1), dim=-1)
    cos, sin = torch.deg2rad(angle).cos().abs(), torch.deg2rad(angle).sin().abs()
    half = (cos * size + sin * size.flip(-1)) / 2  # (..., 2), of the upright box
    return torch.cat((center - half, center + half), dim=-1).to(_floating(box))


def _xywh_to_xywha(box: Tensor) -> Tensor:
    corner, size = box.double().split(2, dim=-1)
    return torch.cat((corner + size / 2, size, torch.zeros_like(size[..., :1])), dim=-1).to(_floating(box))


def _floating(box: Tensor) -> torch.dtype:
    return box.dtype if box.is_floating_point() else torch.float64


_CONVERSIONS = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
}
