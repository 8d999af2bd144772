"""Semantic segmentation beside segmentation_models_pytorch and torchvision, in one run.

    python tools/benchmark_semantic.py [--threads 2] [--repeats 5] [--only deeplabv3] [--json FILE] [--markdown FILE]

Four networks, each built by one of our recipes and by a peer, with random weights, trained batch norm and 21 classes:

    unet         U-Net on ResNet-34, decoder 256 to 16, nearest upsampling     segmentation_models_pytorch.Unet
    deeplabv3+   on ResNet-50, output stride 16, separable, rates 12, 24, 36   segmentation_models_pytorch.DeepLabV3Plus
    fcn          on ResNet-50, output stride 8                                 torchvision fcn_resnet50
    deeplabv3    on ResNet-50, output stride 8, rates 12, 24, 36               torchvision deeplabv3_resnet50

Both sides see the same images and score every input pixel: inference on one image of 480 x 640, a training step
(forward, cross entropy with ignored pixels, backward, SGD) on two of 256 x 320. The peers are given their images
normalized already; ours normalize uint8 images in each round. Memory is taken in a process for each contestant; the
rounds of all are interleaved in one, so that a busy machine slows all of them alike; figures are medians. Ours comes
in three settings: `default` is what a recipe gets without asking, bf16 autocast where the CPU has it and channels_last
where that is faster; `fp32` has the peers' precision (`amp=off`); `fp32 NCHW` their memory layout too
(`train.channels_last=false`). For inference the batch norms are in the kernels, as `Predictor` has them. A peer that
cannot be imported is skipped, and says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from benchmark import make_images
from contest import SETTINGS, compare, finish_step, make_optimizer, make_ready, measure, print_table
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 21
INFERENCE_SIZE, TRAINING_SIZE = (480, 640), (256, 320)
TASKS = {"inference 1 x 480 x 640": False, "training step 2 x 256 x 320": True}
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@dataclass(frozen=True)
class Pair:
    """A network of ours and its peer.

    Args:
        recipe, overrides: what makes ours; the overrides make it what the peer is.
        peer: name of the peer.
        build_peer: makes it, a module from normalized images (N, 3, H, W) to scores (N, K, H, W).
    """

    recipe: str
    overrides: tuple[str, ...]
    peer: str
    build_peer: Callable[[], nn.Module]


def _unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=NUM_CLASSES)


def _deeplabv3_plus() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus("resnet50", encoder_weights=None, classes=NUM_CLASSES)


class _Torchvision(nn.Module):
    """torchvision's segmentation networks, without the auxiliary head, as modules that give the scores alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import segmentation

        self.model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["out"]


PLAIN = "{name: CrossEntropy}"
PAIRS = {
    "unet": Pair("unet:unet_r34_voc", (f"model.heads.classes.loss={PLAIN}",), "segmentation_models_pytorch", _unet),
    "deeplabv3+": Pair(
        "deeplab:deeplab_v3plus_r50_ade20k",
        (
            "model.backbone.dilate_first_block=true",
            "model.heads.sem_seg={name: DeepLabV3PlusHead, pool_norm: bn, separable: true, inner_norm: none, "
            "num_convs: 1, decoder_convs: 1, rates: [12, 24, 36], dropout: 0.5}",
        ),
        "segmentation_models_pytorch",
        _deeplabv3_plus,
    ),
    "fcn": Pair(
        "fcn:fcn_r50_voc", ("model.heads.auxiliary=null",), "torchvision", partial(_Torchvision, "fcn_resnet50")
    ),
    "deeplabv3": Pair("deeplab:deeplab_v3_r50_voc", (), "torchvision", partial(_Torchvision, "deeplabv3_resnet50")),
}


def make_labels(size: tuple[int, int], number: int) -> Tensor:
    """Patches of classes (number, H, W), every tenth ignored."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, NUM_CLASSES, (number, 1, size[0] // 16, size[1] // 16), generator=generator)
    coarse[torch.rand(coarse.shape, generator=generator) < 0.1] = 255
    return F.interpolate(coarse.float(), size=size, mode="nearest")[:, 0].long()


def ours(pair: Pair, settings: str, training: bool) -> Callable[[], object]:
    """One inference, or one training step, of our model with these of the `SETTINGS`."""
    from vertebra import build_model, load_recipe

    recipe = load_recipe(pair.recipe, [*pair.overrides, *SETTINGS[settings]])
    torch.manual_seed(0)
    model = build_model(recipe, NUM_CLASSES, pretrained=False)
    size, number = (TRAINING_SIZE, 2) if training else (INFERENCE_SIZE, 1)
    inputs = [{"image": image} for image in make_images(size, number)]
    autocast = make_ready(model, recipe, training)
    if not training:

        def infer() -> object:
            with torch.inference_mode(), autocast():
                return model(inputs)[0]["sem_seg"]

        return infer
    for record, labels in zip(inputs, make_labels(size, number), strict=True):
        record["sem_seg"] = labels
    optimizer = make_optimizer(model)

    def step() -> object:
        with autocast():
            losses = model(inputs)
        return finish_step(optimizer, sum(losses.values()))

    return step


def peers(pair: Pair, training: bool) -> Callable[[], object]:
    """The same of the peer, in fp32 as its documentation has it."""
    torch.manual_seed(0)
    model = pair.build_peer()
    size, number = (TRAINING_SIZE, 2) if training else (INFERENCE_SIZE, 1)
    images = torch.stack([(image / 255 - MEAN) / STD for image in make_images(size, number)])
    if not training:
        model.eval()

        def infer() -> object:
            with torch.inference_mode():
                return model(images)[0]

        return infer
    labels = make_labels(size, number)
    model.train()
    optimizer = make_optimizer(model)

    def step() -> object:
        return finish_step(optimizer, F.cross_entropy(model(images), labels, ignore_index=255))

    return step


def contestants(pair: Pair, training: bool) -> dict[str, Callable[[], Callable[[], object]]]:
    return {
        f"{pair.peer} fp32": partial(peers, pair, training),
        **{f"vertebra {settings}": partial(ours, pair, settings, training) for settings in SETTINGS},
    }


def main() -> None:
    """Measures, prints the tables, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=PAIRS, action="append", help="measure these networks only")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--markdown", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, dict] = {}
    lines = [
        "| network | task | | seconds | speed-up | peak MiB | of the peer's |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for network in options.only or PAIRS:
        pair = PAIRS[network]
        try:
            pair.build_peer()
        except ImportError as err:
            print(f"\n{network}: skipped, {pair.peer} cannot be imported: {err}")
            continue
        for task, training in TASKS.items():
            results = measure(contestants(pair, training), options.repeats)
            report.setdefault(network, {})[task] = {name: result._asdict() for name, result in results.items()}
            print_table(f"{network}, {task}, {options.threads} threads, median of {options.repeats}", results)
            for name, seconds, speedup, peak, share in compare(results):
                lines.append(
                    f"| {network} | {task} | {name} | {seconds:.3f} | {speedup:.2f} | {peak:.0f} | {share:.2f} |"
                )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
