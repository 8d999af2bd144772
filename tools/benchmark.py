"""RetinaNet R50-FPN beside torchvision's, in one run: seconds and peak memory, and their ratios.

    python tools/benchmark.py [--threads 2] [--repeats 7] [--json FILE]

Both models have the same architecture (ResNet-50 with trained batch norm, FPN, 4 + 4 convolutions, 9 anchors) and the
same 91 classes, random weights, and see the same images: inference on one image of 480 x 640, a training step
(forward, backward, SGD) on two of 320 x 448 with 6 objects each. The rounds of all contestants are interleaved, so that
a busy machine slows all of them alike; figures are medians. Ours comes in three settings: `default` is what a recipe
gets without asking, bf16 autocast where the CPU has it and channels_last where that is faster; `fp32` has the peer's
precision (`amp=off`); `fp32 NCHW` its memory layout too (`train.channels_last=false`). For inference the batch
norms are in the kernels, as `Predictor` has them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contest import SETTINGS, finish_step, make_optimizer, make_ready, measure, print_table

NUM_CLASSES = 91
INFERENCE_SIZE, TRAINING_SIZE = (480, 640), (320, 448)

RECIPE = "retinanet:retinanet_r50_fpn"
LIKE_THE_PEER = (
    "model.backbone.norm=bn",
    "model.backbone.freeze_at=0",
    "model.backbone.weights=null",
    f"model.heads.boxes.num_classes={NUM_CLASSES}",
)


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


def ours(settings: str, training: bool) -> Callable[[], object]:
    """One inference, or one training step, of our model with these of the `SETTINGS`."""
    from vertebra import Boxes, Instances, build_model, load_recipe

    recipe = load_recipe(RECIPE, [*LIKE_THE_PEER, *SETTINGS[settings]])
    torch.manual_seed(0)
    model = build_model(recipe)
    autocast = make_ready(model, recipe, training)
    size = TRAINING_SIZE if training else INFERENCE_SIZE
    inputs = [
        {"image": image, "height": size[0], "width": size[1]} for image in make_images(size, 2 if training else 1)
    ]
    if not training:

        def infer() -> object:
            with torch.inference_mode(), autocast():
                return model(inputs)

        return infer
    for record, (boxes, classes) in zip(inputs, make_targets(size, 2), strict=True):
        record["instances"] = Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
    optimizer = make_optimizer(model)

    def step() -> object:
        with autocast():
            losses = model(inputs)
        return finish_step(optimizer, sum(losses.values()))

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
    optimizer = make_optimizer(model)

    def step() -> object:
        return finish_step(optimizer, sum(model(images, targets).values()))

    return step


def contestants(training: bool) -> dict[str, Callable[[], Callable[[], object]]]:
    return {
        "torchvision fp32": partial(torchvisions, training),
        **{f"vertebra {settings}": partial(ours, settings, training) for settings in SETTINGS},
    }


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
        results = measure(contestants(training), options.repeats)
        report[task] = {name: result._asdict() for name, result in results.items()}
        print_table(f"{task}, {options.threads} threads, median of {options.repeats}", results)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
