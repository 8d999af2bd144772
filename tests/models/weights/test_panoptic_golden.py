"""Panoptic FPN R50 agrees with Detectron2: from its weights file to segments and semantic scores.

The numbers and their origin: tests/reference/golden_panoptic.md.
"""

import json

import numpy as np
import pytest
import torch

from vertebra.config import load_recipe
from vertebra.models import build_model, load_weights, read_weights
from vertebra.models.import_detectron2 import import_detectron2

pytest.importorskip("vertebra_rcnn", reason="the recipe's things head comes from vertebra-rcnn")
pytest.importorskip("vertebra_panoptic", reason="the recipe's head comes from vertebra-panoptic")

pytestmark = pytest.mark.golden

RULES = [
    ("proposal_generator.rpn_head.anchor_deltas.weight", 0.1, 0),
    ("roi_heads.box_predictor.cls_score.weight", 2, 0),
    ("roi_heads.box_predictor.bbox_pred.weight", 0.5, 0),
    ("roi_heads.mask_head.predictor.weight", 2, 0),
]


@pytest.fixture(scope="module")
def numbers(repository):
    return json.loads((repository / "tests/reference/golden_panoptic.json").read_text())


@pytest.fixture(scope="module")
def arrays(repository):
    return dict(np.load(repository / "tests/reference/golden_panoptic.npz"))


@pytest.fixture(scope="module")
def model(repository, golden_rule, numbers, tmp_path_factory):
    """Imported through the real path, the number of classes left to the recipe's data."""
    folder = tmp_path_factory.mktemp("panoptic")
    weights = {}
    for name, shape, total in numbers["state_dict"]:
        weights[name] = torch.from_numpy(golden_rule.value(name, shape, [*RULES, *golden_rule.scales]))
        assert weights[name].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), name
    torch.save({"model": weights, "__author__": "Detectron2"}, folder / "model_final.pth")
    heads = "model.heads.panoptic"
    recipe = load_recipe(
        str(repository / "configs/panoptic/coco_panoptic_fpn_r50_1x.yaml"),
        ["model.backbone.weights=null", f"{heads}.things.num_classes=80", f"{heads}.stuff.num_classes=54"],
    )
    report = import_detectron2(folder / "model_final.pth", recipe, folder / "ours.pth", num_classes=80)
    assert (report.num_loaded, report.unused, report.kept) == (len(weights), (), ())
    model = build_model(recipe, 80, pretrained=False)
    load_weights(model, read_weights(str(folder / "ours.pth")))
    return model.eval()


@pytest.fixture(scope="module")
def outputs(golden, model, numbers):
    found = {}
    for case, wanted in numbers["results"].items():
        height, width = wanted["image_size"]
        with torch.no_grad():
            found[case] = model([{"image": golden.images[case], "height": height, "width": width}])[0]
    return found


@pytest.mark.parametrize("case", ["A", "B"])
def test_segments_agree(numbers, outputs, case):
    """Ids, kinds, instances and classes exactly, scores to 1e-5, areas but for pixels on mask borders (see below).

    Detectron2's stuff counts from 1.
    """
    found, wanted = outputs[case]["panoptic_seg"][1], numbers["results"][case]["segments_info"]
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        for key in ("id", "isthing", "instance_id"):
            assert ours.get(key) == theirs.get(key), (ours, theirs)
        assert abs(ours.get("area", 0) - theirs.get("area", 0)) <= 5, (ours, theirs)
        assert ours["category_id"] == theirs["category_id"] - (not theirs["isthing"])
        assert ours.get("score", 0) == pytest.approx(theirs.get("score", 0), abs=1e-5)


@pytest.mark.parametrize("case", ["A", "B"])
def test_every_pixel_is_of_the_same_segment(arrays, outputs, case):
    """But for mask borders: there a probability is within rounding of one half."""
    found, wanted = outputs[case]["panoptic_seg"][0].numpy(), arrays[f"{case}/panoptic_seg"]
    assert found.shape == wanted.shape
    assert (found != wanted).sum() <= 5e-5 * found.size


@pytest.mark.parametrize("case", ["A", "B"])
def test_semantic_scores_agree(arrays, outputs, case):
    scores, wanted = outputs[case]["sem_seg"], arrays[f"{case}/sem_seg/sample"]
    flat = scores.flatten()
    sample = flat[:: len(flat) // len(wanted)][: len(wanted)]
    assert np.abs(sample.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.array_equal(scores.argmax(dim=0)[::4, ::4].numpy(), arrays[f"{case}/sem_seg/argmax"])


def test_the_semantic_loss_agrees(golden, model, numbers):
    inputs = []
    for image in (golden.images["A"], golden.images["B"]):
        ys, xs = np.mgrid[: image.shape[1], : image.shape[2]]
        labels = ((ys // 40) * 7 + (xs // 56) * 3) % 54
        labels[:8] = 255
        inputs.append({"image": image, "sem_seg": torch.from_numpy(labels)})
    batch = model.make_batch(inputs)
    with torch.no_grad():
        raw = model.compute(batch.images)["panoptic"]["stuff"]
        loss = model.heads["panoptic"].stuff.losses(raw, batch)["loss_sem_seg"]
    assert loss.item() == pytest.approx(numbers["loss_sem_seg"][0], rel=1e-5)
