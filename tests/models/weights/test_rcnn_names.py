"""Names and shapes of Detectron2's models without golden numbers: all import, and nothing is left over.

What they share with the golden models comes from there; the rest is written here from their configurations.
"""

import json

import pytest
import torch

from vertebra.config import load_recipe
from vertebra.models import build_model
from vertebra.models.import_detectron2 import translate_names

pytest.importorskip("vertebra_rcnn", reason="the head comes from vertebra-rcnn")

MASKED = "roi_heads.mask_head."


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def conv(name, inputs, outputs, kernel):
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


@pytest.fixture(scope="module")
def golden(repository):
    """golden(model) -> {name: shape} of a golden model's whole state dict."""
    models = json.loads((repository / "tests/reference/golden_rcnn.json").read_text())["models"]

    def shapes(name):
        own = models[name]
        found = shapes(own["state_dict_shared_with"]) if "state_dict_shared_with" in own else {}
        return found | {key: tuple(shape) for key, shape, *_ in own["state_dict"]}

    return shapes


def cascade(golden, masks):
    """Misc/cascade_mask_rcnn_R_50_FPN: three box heads, one box for all classes."""
    found = {key: shape for key, shape in golden("mask_fpn").items() if not key.startswith("roi_heads.box_")}
    for stage in range(3):
        head, predictor = f"roi_heads.box_head.{stage}", f"roi_heads.box_predictor.{stage}"
        found |= linear(f"{head}.fc1", 256 * 7 * 7, 1024) | linear(f"{head}.fc2", 1024, 1024)
        found |= linear(f"{predictor}.cls_score", 1024, 81) | linear(f"{predictor}.bbox_pred", 1024, 4)
    return {key: shape for key, shape in found.items() if masks or not key.startswith(MASKED)}


def dilated(golden, masks):
    """COCO-Detection/faster_rcnn_R_50_DC5 and its mask model: all on a res5 of 2048 channels and stride 16."""
    c4 = golden("faster_c4")
    found = {f"backbone.{key.removeprefix('roi_heads.')}": c4[key] for key in c4 if key.startswith("roi_heads.res5.")}
    found |= {key: shape for key, shape in c4.items() if key.startswith("backbone.")}
    rpn = "proposal_generator.rpn_head"
    found |= conv(f"{rpn}.conv", 2048, 2048, 3)
    found |= conv(f"{rpn}.objectness_logits", 2048, 15, 1) | conv(f"{rpn}.anchor_deltas", 2048, 60, 1)
    found |= linear("roi_heads.box_head.fc1", 2048 * 7 * 7, 1024) | linear("roi_heads.box_head.fc2", 1024, 1024)
    found |= linear("roi_heads.box_predictor.cls_score", 1024, 81) | linear(
        "roi_heads.box_predictor.bbox_pred", 1024, 320
    )
    if masks:
        found |= {key: shape for key, shape in golden("mask_fpn").items() if key.startswith(MASKED)}
        found |= conv(f"{MASKED}mask_fcn1", 2048, 256, 3)
    return found


def shared_c4(golden):
    """COCO-InstanceSegmentation/mask_rcnn_R_50_C4: its mask head is one transposed convolution on res5's regions."""
    deconv = {f"{MASKED}deconv.weight": (2048, 256, 2, 2), f"{MASKED}deconv.bias": (256,)}
    return golden("faster_c4") | deconv | conv(f"{MASKED}predictor", 256, 80, 1)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("cascade_rcnn_r50_fpn", lambda golden: cascade(golden, False)),
        ("cascade_mask_rcnn_r50_fpn", lambda golden: cascade(golden, True)),
        ("faster_rcnn_r50_dc5", lambda golden: dilated(golden, False)),
        ("mask_rcnn_r50_dc5", lambda golden: dilated(golden, True)),
        ("mask_rcnn_r50_c4", shared_c4),
    ],
)
def test_every_weight_finds_its_place(golden, name, entries):
    theirs = entries(golden)
    with torch.device("meta"):  # shapes alone
        model = build_model(load_recipe(f"rcnn:{name}"), num_classes=80, pretrained=False)
    renamed, unused = translate_names(theirs, model)
    assert not unused
    assert {own: tuple(value.shape) for own, value in model.state_dict().items()} == {
        own: theirs[given] for own, given in renamed.items()
    }
