"""The sums of a semantic evaluation over images and processes, and the images that did worst."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.semantic.pixels import class_pixels

__all__ = ["DOUBT_LEVELS", "Judged", "Tally"]

DOUBT_LEVELS = 255

_WORST = 24  # images kept for the report
_HELD = 64  # from here on the best of them are dropped, which is the one thing that waits for the device
_RECENT = 8  # images whose counts can still be taken back


@dataclass
class Judged:
    """One image's prediction.

    Args:
        codes: (H, W) predicted codes, of a small whole type.
        quality: scalar, mean IoU over its true classes, NaN if it has none.
        doubt: (H, W) uint8, the entropy of the class probabilities, DOUBT_LEVELS where it is greatest; None: not known.
    """

    key: ImageKey
    codes: Tensor
    quality: Tensor
    doubt: Tensor | None = None


class Tally:
    """Adds up the counts of images, on their device.

    Samplers that fill up the last batch give an image to a second process, at the end of its share. The counts of the
    last images are therefore kept one by one, and those of an image that another process has too are taken back.

    Attributes:
        counts: (K+1, K+2) int64, see `pixel_counts`. boundary: (3, K) int64, or None.
        keys: the images, in the order they came, each with its (3, K) int32 pixels by class: in both maps, in the
            truth, in the prediction; or (6, K), with the same of boundaries.
        worst: the images that did worst, and the last ones.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes + 1, num_classes + 2, dtype=torch.int64)
        self.boundary: Tensor | None = None
        self.keys: dict[ImageKey, Tensor] = {}
        self.worst: list[Judged] = []
        self.recent: deque[tuple[ImageKey, Tensor, Tensor | None]] = deque(maxlen=_RECENT)
        self._type = torch.uint8 if num_classes < 255 else torch.int32

    def has(self, key: ImageKey) -> bool:
        return key in self.keys

    def add(
        self,
        key: ImageKey,
        counts: Tensor,
        boundary: Tensor | None,
        codes: Tensor,
        quality: Tensor,
        doubt: Tensor | None = None,
    ) -> None:
        """One image's counts, its predicted codes (H, W), its mean IoU, and its entropy (H, W) from 0 to 1."""
        self.counts = self.counts.to(counts.device) + counts
        if boundary is not None:
            self.boundary = boundary if self.boundary is None else self.boundary.to(boundary.device) + boundary
        pixels = class_pixels(counts)
        self.keys[key] = (pixels if boundary is None else torch.cat([pixels, boundary])).int()
        self.recent.append((key, counts, boundary))
        if doubt is not None:
            doubt = (doubt * DOUBT_LEVELS).round().to(torch.uint8)
        self.worst.append(Judged(key, codes.to(self._type), quality, doubt))
        if len(self.worst) >= _HELD:
            self.worst = _worst(self.worst)

    def on_cpu(self) -> Tally:
        """A copy that can be sent to another process; waits for the device."""
        copy = Tally(len(self.counts) - 1)
        copy.counts = self.counts.cpu()
        copy.boundary = None if self.boundary is None else self.boundary.cpu()
        if self.keys:
            pixels = torch.stack(list(self.keys.values())).cpu()  # waits once, not for each image
            copy.keys = dict(zip(self.keys, pixels, strict=True))
        copy.recent.extend((key, a.cpu(), None if b is None else b.cpu()) for key, a, b in self.recent)
        copy.worst = [
            Judged(i.key, i.codes.cpu(), i.quality.cpu(), None if i.doubt is None else i.doubt.cpu())
            for i in _worst(self.worst)
        ]
        return copy

    @classmethod
    def merged(cls, shards: Sequence[Tally]) -> Tally:
        """The sum of several processes' tallies, each image once.

        Raises:
            DataError: an image was counted by several processes, and not as one of the last.
        """
        total = cls(len(shards[0].counts) - 1)
        for shard in shards:
            total._add_shard(shard)
        total.worst = _worst(total.worst)
        return total

    def _add_shard(self, shard: Tally) -> None:
        counts, boundary = shard.counts, shard.boundary
        for key in [key for key in shard.keys if key in self.keys]:
            found = [item for item in (*shard.recent, *self.recent) if item[0] == key]
            if not found:
                raise DataError(
                    f"image {key.image_id!r} ({key.file_name}) was evaluated in two processes; give each its own images"
                )
            counts = counts - found[0][1]
            again = found[0][2]
            boundary = None if boundary is None or again is None else boundary - again
        self.counts = self.counts + counts
        if boundary is not None:
            self.boundary = boundary if self.boundary is None else self.boundary + boundary
        self.worst += [image for image in shard.worst if image.key not in self.keys]
        self.keys |= {key: pixels for key, pixels in shard.keys.items() if key not in self.keys}
        self.recent = deque([*self.recent, *shard.recent])


def _worst(images: list[Judged]) -> list[Judged]:
    """The worst first; images without a true class last."""
    if not images:
        return []
    quality = torch.stack([image.quality for image in images]).nan_to_num(nan=2.0).cpu()
    return [images[i] for i in torch.argsort(quality, stable=True)[:_WORST].tolist()]
