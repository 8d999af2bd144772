"""ResNet-50 with FPN agrees with Detectron2, stage by stage."""

import re

import pytest
import torch

from vertebra.models import Model, load_weights
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.necks.fpn import FPN, P6P7

# Detectron2's means, in BGR; its standard deviations are 1.
PIXEL_MEAN = (103.53, 116.28, 123.675)


def translate(weights, part):
    """Whole names of Detectron2 to the part's own, by its `detectron2_names`; the others are skipped."""
    own = {}
    for name, value in weights.items():
        for pattern, replacement in part.detectron2_names:
            if re.search(pattern, name):
                own[re.sub(pattern, replacement, name)] = value
    return own


@pytest.fixture(scope="module")
def model(golden_backbone):
    backbone = ResNet(50, norm="frozen_bn", stride_in_1x1=True, out_features=("res3", "res4", "res5"))
    neck = FPN(backbone.output_shape(), top_block=P6P7())
    load_weights(backbone, translate(golden_backbone.weights, backbone))
    load_weights(neck, translate(golden_backbone.weights, neck))
    return Model(backbone, neck, pixel_mean=PIXEL_MEAN, pixel_std=(1.0, 1.0, 1.0), pixel_order="bgr").eval()


def test_the_rule_gives_the_golden_weights(golden_backbone):
    for name, total in golden_backbone.sums.items():
        assert golden_backbone.weights[name].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), name


def test_every_golden_weight_belongs_to_one_part(golden_backbone, model):
    parts = [translate(golden_backbone.weights, part) for part in (model.backbone, model.neck)]
    assert sum(map(len, parts)) == len(golden_backbone.weights)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("letter", ["A", "B"])
def test_stages_agree_to_1e_4(golden_backbone, model, letter, channels_last):
    model.channels_last = channels_last
    stages = {}
    hooks = [
        getattr(model.backbone, name).register_forward_hook(
            lambda module, args, out, name=name: stages.update({f"backbone.bottom_up.{name}": out})
        )
        for name in ("stem", "res2", "res3", "res4", "res5")
    ]
    rgb = golden_backbone.images[letter].flip(0)  # the golden images are BGR; a Model takes RGB
    with torch.no_grad():
        pyramid = model.features(model.make_batch([{"image": rgb}]).images)
    for hook in hooks:
        hook.remove()
    stages |= {f"backbone/{name}": value for name, value in pyramid.items()}

    wanted = {key: value for key, value in golden_backbone.slices.items() if key.startswith(letter)}
    assert {f"{letter}/{name}" for name in stages} == set(wanted)
    for key, value in wanted.items():
        flat = stages[key.removeprefix(f"{letter}/")].flatten()
        scale = max(map(abs, golden_backbone.bounds[key]))
        step = len(flat) // len(value)
        assert (flat[::step][: len(value)] - value).abs().max() < 1e-4 * scale, key
        bounds = [flat.min().item(), flat.max().item()]
        assert bounds == pytest.approx(golden_backbone.bounds[key], abs=1e-4 * scale), key
