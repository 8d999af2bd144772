"""Predict every batch of a loader and hand it to the evaluators, with the time taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import nn

from vertebra.evaluation.evaluator import Evaluator
from vertebra.models.inference import Predict
from vertebra.runtime import autocast
from vertebra.runtime.distributed import gather_to_main, on_main_process

__all__ = ["Timing", "device_of", "evaluation_mode", "predict_all"]

logger = logging.getLogger(__name__)
_LOG_SECONDS = 15.0  # between two lines of progress


@dataclass
class Timing:
    """Seconds of predicting: waiting for data, the model, and in `total` the evaluators' `process` too."""

    device: str
    precision: str
    images: int = 0
    processes: int = 1
    data: float = 0.0
    model: float = 0.0
    total: float = 0.0
    per_image: list[float] = field(default_factory=list)  # model seconds of each image, by batch

    def over_processes(self) -> Timing:
        """Images of all processes together, times of the slowest, in every process."""
        shards = gather_to_main(self) or []
        return on_main_process(
            lambda: Timing(
                device=self.device,
                precision=self.precision,
                images=sum(shard.images for shard in shards),
                processes=len(shards),
                data=max(shard.data for shard in shards),
                model=max(shard.model for shard in shards),
                total=max(shard.total for shard in shards),
                per_image=[seconds for shard in shards for seconds in shard.per_image],
            )
        )

    def as_info(self) -> dict[str, Any]:
        """Plain numbers for metrics.json."""
        return {
            "images": self.images,
            "processes": self.processes,
            "device": self.device,
            "precision": self.precision,
            "predict_seconds": self.total,
            "data_seconds": self.data,
            "model_seconds": self.model,
            "images_per_second": self.images / self.total if self.images and self.total else None,
            "median_seconds_per_image": median(self.per_image) if self.per_image else None,
        }


def device_of(model: nn.Module) -> torch.device:
    """Where a model's tensors are; the CPU if it has none."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """All parts in evaluation mode, and afterwards each as it was (a frozen part may differ from the rest)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def predict_all(
    model: nn.Module,
    loader: Iterable[list[dict]],
    evaluators: list[Evaluator],
    *,
    amp: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    predict: Predict | None = None,
) -> Timing:
    """Run the model over the loader without gradients.

    Args:
        loader: batches of input dicts; its `indices`, where it has them, say how many images there are.
        amp: auto, bf16, fp16 or off.
        progress: called with (images done, images in all).
        predict: how the model is asked, input dicts to predictions; None: the model itself.
    """
    device = device_of(model)
    timing = Timing(device=_device_name(device), precision="fp32")
    for evaluator in evaluators:
        evaluator.reset()
    in_all = len(getattr(loader, "indices", ()))
    last_line = start = mark = time.perf_counter()
    with evaluation_mode(model), torch.inference_mode():
        for inputs in loader:
            got = time.perf_counter()
            with autocast(device, amp):
                timing.precision = _precision_name(device)
                outputs = (predict or model)(inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            done = time.perf_counter()
            for evaluator in evaluators:
                evaluator.process(inputs, outputs)
            timing.images += len(inputs)
            timing.data += got - mark
            timing.model += done - got
            timing.per_image += [(done - got) / len(inputs)] * len(inputs)
            mark = time.perf_counter()
            if progress is not None:
                progress(timing.images, in_all)
            elif mark - last_line > _LOG_SECONDS:
                last_line = mark
                rate = timing.images / (mark - start)
                logger.info("evaluation: %d of %d images, %.1f img/s", timing.images, in_all, rate)
    timing.total = time.perf_counter() - start
    return timing


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _precision_name(device: torch.device) -> str:
    if not torch.is_autocast_enabled(device.type):
        return "fp32"
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}[torch.get_autocast_dtype(device.type)]
