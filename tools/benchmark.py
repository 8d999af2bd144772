"""RetinaNet R50-FPN beside torchvision's, in one process and one run: seconds and peak memory, and their ratios.

    python tools/benchmark.py [--threads 2] [--repeats 7] [--json FILE]

Both models have the same architecture (ResNet-50 with trained batch norm, FPN, 4 + 4 convolutions, 9 anchors) and the
same 91 classes, random weights, and see the same images: inference on one image of 480 x 640, a training step
(forward, backward, SGD) on two of 320 x 448 with 6 objects each. The rounds of all contestants are interleaved, so that
a busy machine slows all of them alike; figures are medians. `default` is what a recipe gets without asking: bf16
autocast and channels_last where the CPU has them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

NUM_CLASSES = 91
INFERENCE_SIZE, TRAINING_SIZE = (480, 640), (320, 448)

RECIPE = "retinanet:retinanet_r50_fpn"
LIKE_THE_PEER = (
    "model.backbone.norm=bn",
    "model.backbone.freeze_at=0",
    "model.backbone.weights=null",
    f"model.heads.boxes.num_classes={NUM_CLASSES}",
)


class PeakMemory:
    """Peak resident memory above where it began, in MiB, sampled every 2 ms by a thread (Linux)."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        self._start = self._peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mebibytes = (self._peak - self._start) / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_images(size: tuple[int, int], number: int) -> list[torch.Tensor]:
    """Random uint8 images (3, H, W), smooth enough to give some texture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, size[0] // 16, size[1] // 16, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return list((fine * 255).to(torch.uint8))


def make_targets(size: tuple[int, int], number: int, objects: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(boxes (M, 4) xyxy in pixels, classes (M,)) for each image."""
    rng = np.random.default_rng(0)
    targets = []
    for _ in range(number):
        corner = rng.uniform(0, 0.6, (objects, 2))
        extent = rng.uniform(0.1, 0.4, (objects, 2))
        boxes = np.concatenate([corner, corner + extent], axis=1) * [size[1], size[0], size[1], size[0]]
        targets.append(
            (torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(rng.integers(0, NUM_CLASSES, objects)))
        )
    return targets


def ours(mode: str, training: bool) -> Callable[[], object]:
    """One inference, or one training step, of our model in `fp32` or with `default` settings."""
    from vertebra import Boxes, Instances, build_model, load_recipe
    from vertebra.runtime import autocast

    recipe = load_recipe(RECIPE, LIKE_THE_PEER)
    torch.manual_seed(0)
    model = build_model(recipe)
    device = torch.device("cpu")
    amp = "auto" if mode == "default" else "off"
    if mode == "default":
        model = model.to(memory_format=torch.channels_last)
    size = TRAINING_SIZE if training else INFERENCE_SIZE
    inputs = [
        {"image": image, "height": size[0], "width": size[1]} for image in make_images(size, 2 if training else 1)
    ]
    if not training:
        model.eval()

        def infer() -> object:
            with torch.inference_mode(), autocast(device, amp):
                return model(inputs)

        return infer
    for record, (boxes, classes) in zip(inputs, make_targets(size, 2), strict=True):
        record["instances"] = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
    model.train()
    optimizer = recipe.train.optimizer.build().build(model)

    def step() -> object:
        with autocast(device, amp):
            losses = model(inputs)
        return _step(optimizer, sum(losses.values()))

    return step


def torchvisions(training: bool) -> Callable[[], object]:
    """The same of torchvision's retinanet_resnet50_fpn in fp32, its resizing set to leave the images alone."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    size = TRAINING_SIZE if training else INFERENCE_SIZE
    torch.manual_seed(0)
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, min_size=size[0], max_size=size[1]
    )
    images = [image.float() / 255 for image in make_images(size, 2 if training else 1)]
    if not training:
        model.eval()

        def infer() -> object:
            with torch.inference_mode():
                return model(images)

        return infer
    targets = [{"boxes": boxes, "labels": classes} for boxes, classes in make_targets(size, 2)]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)

    def step() -> object:
        return _step(optimizer, sum(model(images, targets).values()))

    return step


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def measure(training: bool, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds and peak MiB of each contestant, rounds interleaved."""
    contestants = {
        "torchvision fp32": lambda: torchvisions(training),
        "vertebra fp32": lambda: ours("fp32", training),
        "vertebra default": lambda: ours("default", training),
    }
    results: dict[str, dict[str, float]] = {}
    for name, make in contestants.items():  # memory: one contestant alive at a time
        run = make()
        run()
        with PeakMemory() as memory:
            run()
        results[name] = {"peak_mib": memory.mebibytes}
        del run
    runs = {name: make() for name, make in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 2:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        results[name]["seconds"] = statistics.median(values)
    return results


def main() -> None:
    """Measures, prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {}
    for task, training in (("inference 1 x 480 x 640", False), ("training step 2 x 320 x 448", True)):
        results = report[task] = measure(training, options.repeats)
        peer = results["torchvision fp32"]
        print(f"\n{task}, {options.threads} threads, median of {options.repeats}")
        print(f"  {'':<18} {'seconds':>8} {'speed-up':>9} {'peak MiB':>9} {'of peer':>8}")
        for name, row in results.items():
            speedup, share = peer["seconds"] / row["seconds"], row["peak_mib"] / max(peer["peak_mib"], 1e-9)
            print(f"  {name:<18} {row['seconds']:8.3f} {speedup:8.2f}x {row['peak_mib']:9.0f} {share:7.2f}x")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
