"""Whole networks and the losses' gradients agree with Darknet's own program (`data/golden_darknet.md`)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.config import load_recipe
from vertebra.models import ShapeSpec, build_model
from vertebra_yolo import YOLOv1Head, YOLOv2Head, YOLOv3Head
from vertebra_yolo.import_darknet import model_convs

GOLDEN = Path(__file__).parent / "data" / "golden_darknet.npz"
ANCHORS = [(10, 14), (30, 40), (80, 60), (60, 100)]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def numbers(count, seed):
    """(count,) float32 in [0, 1), the same everywhere: a hash of place and seed."""
    x = np.arange(count, dtype=np.uint32) + np.uint32(seed * 7919 + 1)
    with np.errstate(over="ignore"):
        for shift, factor in ((16, 0x45D9F3B), (16, 0x45D9F3B)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return torch.from_numpy((x >> np.uint32(8)).astype(np.float32) / 2**24)


@torch.no_grad()
def fill(convs):
    """Kernels of He's variance, statistics and scales around what keeps the signal's size."""
    for layer, conv in enumerate(convs):
        spread = (6 / conv.weight[0].numel()) ** 0.5
        conv.weight.copy_(((numbers(conv.weight.numel(), 9 * layer) * 2 - 1) * spread).view(conv.weight.shape))
        norm = getattr(conv, "norm", None)
        if norm is None:
            conv.bias.copy_(numbers(len(conv.bias), 9 * layer + 1) - 0.5)
            continue
        for place, (tensor, low, high) in enumerate(
            (
                (norm.bias, -0.1, 0.1),
                (norm.weight, 0.4, 0.8),
                (norm.running_mean, -0.1, 0.1),
                (norm.running_var, 0.5, 1.5),
            )
        ):
            tensor.copy_(numbers(len(tensor), 9 * layer + 2 + place) * (high - low) + low)


def activated(level, num_classes, softmax):
    """(A, 5 + K, H, W) as Darknet's layers give it: all but the log sizes after the sigmoid, or the softmax."""
    x = level.view(-1, 5 + num_classes, *level.shape[2:]).clone()
    x[:, :2], x[:, 4] = x[:, :2].sigmoid(), x[:, 4].sigmoid()
    x[:, 5:] = x[:, 5:].softmax(dim=1) if softmax else x[:, 5:].sigmoid()
    return x


@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [
        ("yolov3_tiny", (96, 64), []),
        pytest.param("yolov2", (64, 96), ["model.neck.reorg=darknet"], marks=pytest.mark.golden),
        pytest.param("yolov3", (64, 64), [], marks=pytest.mark.golden),
    ],
)
def test_a_whole_network_answers_as_in_darknet(name, size, changes, golden):
    model = build_model(load_recipe(f"yolo:{name}_coco", changes), 80, pretrained=False).eval()
    fill(model_convs(model))
    with torch.no_grad():
        raw = model.compute(numbers(3 * size[0] * size[1], 1).view(1, 3, *size))["boxes"]
    levels = raw[::-1] if isinstance(raw, list) else [raw]  # Darknet begins with the coarsest
    for number, level in enumerate(levels):
        expected = golden[f"{name}_{number}"]
        found = activated(level, 80, softmax=name == "yolov2")
        assert float(expected.std()) > 0.05
        torch.testing.assert_close(found, expected.view_as(found), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "head", "seen"),
    [
        ("yolo", lambda shape: YOLOv3Head(shape, 3, anchors=[ANCHORS]), None),
        ("region", lambda shape: YOLOv2Head(shape, 3, anchors=ANCHORS), 100_000),
        ("region_warm", lambda shape: YOLOv2Head(shape, 3, anchors=ANCHORS), 0),
    ],
)
def test_the_gradients_of_v2_and_v3_are_darknets(layer, head, seen, golden, truth_batch):
    """Darknet's layers hand back the negative gradient of their loss with respect to what goes in."""
    head = head({"p5": ShapeSpec(channels=4, stride=32)})
    if seen is not None:
        head.images_seen.fill_(seen)
    raw = golden["raw"].clone().requires_grad_()
    batch = truth_batch([golden["boxes"]], [golden["classes"]], size=(128, 192))
    losses = head.losses([raw] if layer == "yolo" else raw, batch)
    sum(losses.values()).backward()
    assert float(golden[layer].abs().max()) > 1
    torch.testing.assert_close(-raw.grad, golden[layer].view_as(raw), rtol=1e-4, atol=1e-5)


def test_the_gradients_of_v1_are_twice_darknets(golden, truth_batch):
    """Equation 3 has squared errors, Darknet's layer halves of them."""
    head = YOLOv1Head({"c6": ShapeSpec(channels=4, stride=64)}, 3, image_size=160, grid=5)
    raw = golden["v1_raw"].clone().requires_grad_()
    batch = truth_batch([golden["v1_boxes"]], [golden["v1_classes"]], size=(160, 160))
    sum(head.losses(raw, batch).values()).backward()
    gradient = raw.grad[0].flatten(0, 1)  # (S*S, B * 5 + K)
    boxes = gradient[:, :10].unflatten(1, (2, 5))
    found = torch.cat((gradient[:, 10:].flatten(), boxes[..., 4].flatten(), boxes[..., :4].flatten()))
    torch.testing.assert_close(-found, 2 * golden["detection"], rtol=1e-4, atol=1e-5)
