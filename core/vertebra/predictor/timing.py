"""How long each stage of a prediction takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

__all__ = ["STAGES", "StageTimes"]

STAGES = ("read", "preprocess", "model", "postprocess", "write")


class StageTimes:
    """Seconds by stage, and images, since it was made.

    Args:
        device: where the model is; a GPU is waited for at the end of each stage, as it works behind the program's back.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.images = 0
        self._device = device
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self._device is not None and self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.seconds[name] += time.perf_counter() - started

    @property
    def total(self) -> float:
        """Seconds since the start, all that lies between the stages included."""
        return time.perf_counter() - self._start

    def __str__(self) -> str:
        if not self.images:
            return "no images"
        per_image = ", ".join(f"{name} {1000 * value / self.images:.1f}" for name, value in self.seconds.items())
        return f"{self.images / self.total:.1f} images/s; ms per image: {per_image}"
