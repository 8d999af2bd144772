"""YOLOv5n and YOLOv10n beside Ultralytics' package, in one run: seconds and their ratios.

    python tools/benchmark_yolo.py [--threads 2] [--repeats 9] [--device cpu] [--json FILE]

Needs `ultralytics` (AGPL-3.0) in the environment, which should be one for this benchmark alone; it is run through its
public interface and nothing of it is part of Vertebra. Its package has YOLOv5n only in the form yolov5nu: the same
backbone and neck below an anchor-free head. Its yolov10n is layer by layer ours.

Inference: one decoded photograph's pixels (960 x 1280, which both resize to 480 x 640) to boxes in the photograph's
pixels, 80 classes, random weights; each contestant's score threshold lets 300 candidates pass. Training step: forward,
backward and the same SGD on 8 images of 320 x 320 with 20 objects each; on a GPU 16 of 640 x 640. The rounds of all
contestants are interleaved, so that a busy machine slows all of them alike; figures are medians. `default` is what a
recipe gets without asking: bf16 autocast where the device computes in it, and channels_last where that is faster;
`fp32` is the same without autocast.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contest import finish_step, make_optimizer, measure, print_table

NUM_CLASSES, OBJECTS, CANDIDATES = 80, 20, 300
PEERS = {"yolov5n": "yolov5nu.yaml", "yolov10n": "yolov10n.yaml"}
INFERENCE_SIZE = (960, 1280)


def make_images(size: tuple[int, int], number: int) -> np.ndarray:
    """(number, H, W, 3) uint8, smooth enough to give some texture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, size[0] // 16, size[1] // 16, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy().copy()


def make_boxes(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(number, OBJECTS, 4) xyxy as parts of the image, and (number, OBJECTS) classes."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (number, OBJECTS, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(0.05, 0.3, corner.shape)), axis=-1)
    return torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(rng.integers(0, NUM_CLASSES, (number, OBJECTS)))


def our_inference(name: str, device: str, default: bool) -> Callable[[], object]:
    """`Predictor` on one photograph."""
    from vertebra import Predictor, build_model, load_recipe

    recipe = load_recipe(f"yolo:{name}", [] if default else ["evaluate.amp=off"])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        content = {"model": build_model(recipe, NUM_CLASSES).state_dict(), "num_classes": NUM_CLASSES}
        torch.save(content, weights)
        predictor = Predictor(recipe, weights, device=device)
    image = make_images(INFERENCE_SIZE, 1)[0]
    head = next(iter(predictor.model.heads.values()))
    if hasattr(head, "nms_threshold"):
        head.score_threshold, head.nms_threshold, head.max_detections = 0.0, 1.0, CANDIDATES
        scores = predictor(image)["instances"].scores  # the best candidates
        head.score_threshold, head.nms_threshold = float(scores[-1]), 0.45
    else:
        head.score_threshold = 0.0
    return lambda: predictor(image)


def peer_inference(name: str, device: str) -> Callable[[], object]:
    """`YOLO.predict` on the same pixels (it takes BGR)."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(PEERS[name])
    image = make_images(INFERENCE_SIZE, 1)[0][:, :, ::-1].copy()
    options = {"imgsz": 640, "device": device, "verbose": False, "iou": 0.45, "max_det": CANDIDATES}
    low, high = 0.0, 1.0
    for _ in range(40):  # the threshold that this many candidates pass, without suppression of doubles
        middle = (low * high) ** 0.5 if low > 0 else high / 10
        found = len(model.predict(image, **(options | {"iou": 1.0}), conf=middle)[0])
        low, high = (middle, high) if found >= CANDIDATES else (low, middle)
        if high - low < 1e-3 * high:
            break
    return lambda: model.predict(image, **options, conf=low)


def our_training(name: str, device: str, size: int, number: int, default: bool) -> Callable[[], object]:
    """One step of the recipe's model."""
    from vertebra import Boxes, Instances, build_model, load_recipe
    from vertebra.runtime import autocast, use_channels_last

    torch.manual_seed(0)
    model = build_model(load_recipe(f"yolo:{name}"), NUM_CLASSES).to(device).train()
    model.channels_last = use_channels_last("auto", torch.device(device), training=True)
    boxes, classes = make_boxes(number)
    inputs = [
        {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "instances": Instances((size, size), gt_boxes=Boxes(box * size), gt_classes=label),
        }
        for image, box, label in zip(make_images((size, size), number), boxes, classes, strict=True)
    ]
    optimizer = make_optimizer(model)
    amp = "auto" if default else "off"

    def step() -> object:
        with autocast(torch.device(device), amp):
            losses = model(inputs)
        return finish_step(optimizer, sum(losses.values()))

    return step


def peer_training(name: str, device: str, size: int, number: int, amp: bool) -> Callable[[], object]:
    """One step of the package's model on the same batch."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(PEERS[name], nc=NUM_CLASSES, verbose=False).to(device).train()
    model.args = get_cfg()
    images = torch.from_numpy(make_images((size, size), number)).permute(0, 3, 1, 2).contiguous()
    boxes, classes = make_boxes(number)
    center, extent = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    targets = {
        "cls": classes.reshape(-1, 1).float(),
        "bboxes": torch.cat((center, extent), dim=-1).reshape(-1, 4),
        "batch_idx": torch.arange(number).repeat_interleave(OBJECTS).float(),
    }
    optimizer = make_optimizer(model)

    def step() -> object:
        batch = {key: value.to(device) for key, value in targets.items()}
        batch["img"] = images.to(device).float() / 255
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=amp):
            loss, _ = model(batch)
        return finish_step(optimizer, loss.sum())

    return step


def main() -> None:
    """Measures, prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = options.device
    gpu = device.startswith("cuda")
    size, number = (640, 16) if gpu else (320, 8)
    report = {}
    for name in options.models:
        tasks = {
            f"{name}, inference 960 x 1280 -> 480 x 640": {
                "ultralytics fp32": partial(peer_inference, name, device),
                "vertebra fp32": partial(our_inference, name, device, False),
                "vertebra default": partial(our_inference, name, device, True),
            },
            f"{name}, training step {number} x {size} x {size}": {
                "ultralytics fp32": partial(peer_training, name, device, size, number, False),
                "ultralytics bf16": partial(peer_training, name, device, size, number, True),
                "vertebra fp32": partial(our_training, name, device, size, number, False),
                "vertebra default": partial(our_training, name, device, size, number, True),
            },
        }
        for task, contestants in tasks.items():
            results = measure(contestants, options.repeats, warmup=3)
            report[task] = {row: result._asdict() for row, result in results.items()}
            print_table(f"{task}, {device}, {torch.get_num_threads()} threads, median of {options.repeats}", results)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
