"""Faster and Mask R-CNN R50-FPN beside torchvision's, in one run: seconds, peak memory, ratios.

    python tools/benchmark_rcnn.py [--threads 2] [--repeats 5] [--models faster mask] [--json FILE]

Both have the same architecture (ResNet-50 with trained batch norm, FPN, RPN with 3 anchors a cell, 1000 proposals, box
head of two layers of 1024, 2 x 2 samples a cell of a region) and the same 91 classes, random weights, and see the same
images: inference on one image of 480 x 640, a training step (forward, backward, SGD) on two of 320 x 448 with 6 objects
each. In training both use 512 regions of 2000 proposals an image. In evaluation one class has a high bias, so that
each proposal is a candidate, suppression has its usual work, and 100 detections are left, each with a mask where
masks are made. The rounds of all contestants are interleaved; figures are medians. Ours comes in three settings:
`default` is what a recipe gets without asking, bf16 autocast where the CPU has it and channels_last where that is
faster; `fp32` has the peer's precision (`amp=off`); `fp32 NCHW` its memory layout too
(`train.channels_last=false`). For inference the batch norms are in the kernels, as `Predictor` has them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmark import INFERENCE_SIZE, NUM_CLASSES, TRAINING_SIZE, make_images, make_targets
from contest import SETTINGS, finish_step, make_optimizer, make_ready, measure, print_table

RECIPES = {"faster": "rcnn:faster_rcnn_r50_fpn", "mask": "rcnn:mask_rcnn_r50_fpn"}
HEAD = "model.heads.objects"
LIKE_THE_PEER = (
    "model.backbone.norm=bn",
    "model.backbone.freeze_at=0",
    "model.backbone.weights=null",
    f"{HEAD}.num_classes={NUM_CLASSES - 1}",  # torchvision counts the background among its classes
    f"{HEAD}.proposals.post_nms_topk=[2000, 1000]",
    f"{HEAD}.boxes.pooler={{name: ROIPooler, resolution: 7, operator: {{name: ROIAlign, sampling_ratio: 2}}}}",
)
LIKE_THE_PEERS_MASKS = (
    f"{HEAD}.masks.pooler={{name: ROIPooler, resolution: 14, operator: {{name: ROIAlign, sampling_ratio: 2}}}}",
)
LIKELY = 5.0  # bias of the one class that everything is taken for


def make_masks(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(M, H, W) bool: the boxes, filled."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def ours(model_name: str, settings: str, training: bool) -> Callable[[], object]:
    """One inference, or one training step, of our model with these of the `SETTINGS`."""
    from vertebra import Boxes, Instances, build_model, load_recipe
    from vertebra.structures import BitMasks

    overrides = [*LIKE_THE_PEER, *(LIKE_THE_PEERS_MASKS if model_name == "mask" else ()), *SETTINGS[settings]]
    recipe = load_recipe(RECIPES[model_name], overrides)
    torch.manual_seed(0)
    model = build_model(recipe)
    autocast = make_ready(model, recipe, training)
    size = TRAINING_SIZE if training else INFERENCE_SIZE
    images = make_images(size, 2 if training else 1)
    inputs = [{"image": image, "height": size[0], "width": size[1]} for image in images]
    if not training:
        model.heads["objects"].boxes.predictor.cls_score.bias.data[0] = LIKELY

        def infer() -> object:
            with torch.inference_mode(), autocast():
                return model(inputs)

        return infer
    for record, (boxes, classes) in zip(inputs, make_targets(size, 2), strict=True):
        truth = {"gt_boxes": Boxes(boxes), "gt_classes": classes % (NUM_CLASSES - 1)}
        record["instances"] = Instances(size, **truth, gt_masks=BitMasks(make_masks(boxes, size)))
    optimizer = make_optimizer(model)

    def step() -> object:
        with autocast():
            losses = model(inputs)
        return finish_step(optimizer, sum(losses.values()))

    return step


def torchvisions(model_name: str, training: bool) -> Callable[[], object]:
    """The same of torchvision's model in fp32, its resizing set to leave the images alone."""
    from torchvision.models import detection

    build = {"faster": detection.fasterrcnn_resnet50_fpn, "mask": detection.maskrcnn_resnet50_fpn}[model_name]
    size = TRAINING_SIZE if training else INFERENCE_SIZE
    torch.manual_seed(0)
    sizes = {"min_size": size[0], "max_size": size[1]}
    model = build(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **sizes)
    images = [image.float() / 255 for image in make_images(size, 2 if training else 1)]
    if not training:
        model.eval().roi_heads.box_predictor.cls_score.bias.data[1] = LIKELY

        def infer() -> object:
            with torch.inference_mode():
                return model(images)

        return infer
    targets = [
        {"boxes": boxes, "labels": classes.clamp(min=1), "masks": make_masks(boxes, size).to(torch.uint8)}
        for boxes, classes in make_targets(size, 2)
    ]
    model.train()
    optimizer = make_optimizer(model)

    def step() -> object:
        return finish_step(optimizer, sum(model(images, targets).values()))

    return step


def contestants(model_name: str, training: bool) -> dict[str, Callable[[], Callable[[], object]]]:
    return {
        "torchvision fp32": partial(torchvisions, model_name, training),
        **{f"vertebra {settings}": partial(ours, model_name, settings, training) for settings in SETTINGS},
    }


def main() -> None:
    """Measures, prints the tables, and writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {}
    for model_name in options.models:
        for task, training in (("inference 1 x 480 x 640", False), ("training step 2 x 320 x 448", True)):
            results = measure(contestants(model_name, training), options.repeats)
            report[f"{model_name}, {task}"] = {name: result._asdict() for name, result in results.items()}
            title = f"{model_name}: {task}, {options.threads} threads, median of {options.repeats}"
            print_table(title, results)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
