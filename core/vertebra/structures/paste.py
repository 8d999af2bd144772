"""Masks predicted in the frame of a box, put back into the image; and masks of whole images, brought to their size.

Sampling is bilinear with pixel centers at half numbers, zero outside the mask. On an upright grid that is two small
matrix products, over rows and then over columns. As Detectron2 does on a CPU, and here on every device, the fade-out
over half a mask cell around the box is cut off one pixel outside it. A mask of a whole image goes on at its border.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vertebra.structures.boxes import Boxes
from vertebra.structures.rle import encode_window

__all__ = ["paste_masks_as_rle", "paste_masks_in_image", "resize_masks_in_boxes", "touched_cells"]

MAX_PIXELS = 2**27
"""Pixels pasted together on a GPU: 512 MB of float32."""


@torch.no_grad()
def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Pastes mask i into box i of an empty image.

    Args:
        masks: (N, S, S) probabilities in [0, 1], one for each box.
        boxes: (N, 4) `xyxy` in pixels of that image; may reach outside.
        image_shape: (height, width).
        threshold: a pixel belongs to the object from this probability on. Below 0: probabilities are kept.
    Returns:
        (N, height, width) bool, or uint8 in [0, 255] where `threshold` is below 0.
    """
    masks, boxes = _checked("paste_masks_in_image", masks, boxes)
    height, width = image_shape
    pasted = torch.zeros(
        len(masks), height, width, dtype=torch.bool if threshold >= 0 else torch.uint8, device=masks.device
    )
    if masks.device.type == "cpu":
        for mask, image, box, window in zip(masks, pasted, boxes, _windows(boxes, height, width), strict=True):
            x0, y0, x1, y1 = window  # most boxes are much smaller than the image
            image[y0:y1, x0:x1] = _quantize(_sample(mask[None], box[None], window)[0], threshold)
        return pasted
    step = max(1, MAX_PIXELS // (height * width))
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        pasted[part] = _quantize(_sample(masks[part], boxes[part], (0, 0, width, height)), threshold)
    return pasted


@torch.no_grad()
def paste_masks_as_rle(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> list[dict[str, Any]]:
    """As `paste_masks_in_image`, to compressed COCO RLEs; in memory is one mask's window at a time.

    Returns:
        N dicts {"size": [height, width], "counts": text}.
    """
    masks, boxes = (part.cpu() for part in _checked("paste_masks_as_rle", masks, boxes))
    encoded = []
    for mask, box, window in zip(masks, boxes, _windows(boxes, *image_shape), strict=True):
        pixels = _sample(mask[None], box[None], window)[0] >= threshold
        encoded.append(encode_window(pixels.numpy(), window[:2], image_shape))
    return encoded


@torch.no_grad()
def resize_masks_in_boxes(
    masks: Tensor,
    boxes: Boxes | Tensor,
    image_shape: tuple[int, int],
    frame: tuple[float, float] | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Masks of a whole image at that image's size; of each stays what its box touches.

    Args:
        masks: (N, h, w) probabilities in [0, 1]; the cells cover `frame`.
        boxes: (N, 4) `xyxy` in pixels of the image; may reach outside.
        image_shape: (height, width).
        frame: (height, width) in pixels of the image that all cells together cover, from its upper left corner on: more
            than the image where the network's input was padded. None: the image.
        threshold: a pixel belongs to the object from this probability on.
    Returns:
        (N, height, width) bool.
    """
    masks, boxes = masks.float(), (boxes.tensor if isinstance(boxes, Boxes) else boxes).float()
    if masks.ndim != 3 or len(boxes) != len(masks):
        raise ValueError(
            f"resize_masks_in_boxes takes masks (N, h, w) and a box for each, got {tuple(masks.shape)} and {len(boxes)}"
        )
    height, width = image_shape
    frame = image_shape if frame is None else frame
    if masks.device.type != "cpu":
        return _in_boxes(masks, boxes, image_shape, frame, threshold)
    resized = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for mask, image, window in zip(masks, resized, _windows(boxes, height, width, margin=0), strict=True):
        x0, y0, x1, y1 = window
        image[y0:y1, x0:x1] = _interpolate(mask[None], frame, window)[0] >= threshold
    return resized


def touched_cells(boxes: Tensor, height: int, width: int) -> Tensor:
    """The cells of a grid that each box reaches into.

    Args:
        boxes: (..., 4) `xyxy`, in cells.
    Returns:
        (..., height, width) bool.
    """
    inside = []
    for axis, count in ((1, height), (0, width)):
        cells = torch.arange(count, device=boxes.device)
        low, high = boxes[..., axis, None].floor(), boxes[..., axis + 2, None].ceil()
        inside.append((cells >= low) & (cells < high))  # (..., count)
    return inside[0][..., :, None] & inside[1][..., None, :]


def _checked(who: str, masks: Tensor, boxes: Boxes | Tensor) -> tuple[Tensor, Tensor]:
    boxes = boxes.tensor if isinstance(boxes, Boxes) else boxes
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2]:
        raise ValueError(f"{who} takes square masks (N, S, S), got shape {tuple(masks.shape)}")
    if len(boxes) != len(masks):
        raise ValueError(f"{who} needs a box for each mask, got {len(boxes)} and {len(masks)}")
    return masks.float(), boxes.float()


def _sample(masks: Tensor, boxes: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Masks (n, S, S) as seen through a window (x0, y0, x1, y1) of the image: (n, y1 - y0, x1 - x0)."""
    x0, y0, x1, y1 = window
    size = masks.shape[-1]
    rows = _weights(boxes[:, 1], boxes[:, 3], y0, y1, size)  # (n, h, S)
    columns = _weights(boxes[:, 0], boxes[:, 2], x0, x1, size)  # (n, w, S)
    return rows @ masks @ columns.transpose(1, 2)


def _weights(low: Tensor, high: Tensor, start: int, end: int, size: int) -> Tensor:
    """How much each of `size` mask cells between `low` and `high` counts for image pixels start..end - 1.

    Returns:
        (n, end - start, size); a row has at most two entries above 0. Boxes of no extent get no pixel.
    """
    centers = torch.arange(start, end, device=low.device, dtype=torch.float32) + 0.5  # (P,)
    extent = (high - low).clamp(min=1e-6)[:, None]
    places = (centers - low[:, None]) / extent * size - 0.5  # (n, P), in mask cells from the first's center
    cells = torch.arange(size, device=low.device, dtype=torch.float32)
    weights = (1 - (places[..., None] - cells).abs()).clamp(min=0)
    near = (centers > low[:, None].floor() - 1) & (centers < high[:, None].ceil() + 1)  # as in `_windows`
    return weights * near[..., None]


def _in_boxes(
    masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], frame: tuple[float, float], threshold: float
) -> Tensor:
    """`resize_masks_in_boxes` without a wait for the device: many masks at once, each at the image's size."""
    height, width = image_shape
    resized = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    step = max(1, MAX_PIXELS // (height * width))
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        found = _interpolate(masks[part], frame, (0, 0, width, height)) >= threshold
        resized[part] = found & touched_cells(boxes[part], height, width)
    return resized


def _interpolate(masks: Tensor, frame: tuple[float, float], window: tuple[int, int, int, int]) -> Tensor:
    """Masks (n, h, w) that cover `frame`, as seen through a window (x0, y0, x1, y1): (n, y1 - y0, x1 - x0)."""
    x0, y0, x1, y1 = window
    above, below, share = _neighbors(y0, y1, frame[0], masks.shape[1], masks.device)
    rows = masks[:, above].lerp(masks[:, below], share[:, None])  # (n, y1 - y0, w)
    left, right, share = _neighbors(x0, x1, frame[1], masks.shape[2], masks.device)
    return rows[:, :, left].lerp(rows[:, :, right], share)


def _neighbors(start: int, end: int, extent: float, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For pixels start..end - 1 the cell before and behind, of `size` over `extent` pixels, and the latter's share."""
    centers = torch.arange(start, end, device=device, dtype=torch.float32) + 0.5
    places = (centers / extent * size - 0.5).clamp(0, size - 1)  # in cells from the first's center
    before = places.long()
    return before, (before + 1).clamp(max=size - 1), places - before


def _windows(boxes: Tensor, height: int, width: int, margin: int = 1) -> list[tuple[int, int, int, int]]:
    """The whole pixels of each box and `margin` more on each side, inside the image: x0, y0, x1, y1."""
    near, far = boxes[:, :2].floor() - margin, boxes[:, 2:].ceil() + margin
    limit = torch.tensor([width, height], device=boxes.device)
    corners = torch.cat((near, far), dim=1).nan_to_num().clamp(min=0)
    return [tuple(row) for row in torch.minimum(corners, limit.repeat(2)).long().tolist()]


def _quantize(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
