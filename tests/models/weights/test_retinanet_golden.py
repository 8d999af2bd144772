"""RetinaNet R50-FPN agrees with Detectron2: through the real path, from its weights file to boxes and losses.

The numbers and their origin: tests/reference/golden_retinanet.md.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from vertebra.config import load_recipe
from vertebra.models import build_model, load_weights, read_weights
from vertebra.models.import_detectron2 import import_detectron2, translate_names
from vertebra.structures import Boxes, Instances

pytestmark = pytest.mark.golden

OVERRIDES = ["model.heads.boxes.num_classes=80", "model.backbone.weights=null"]


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("retinanet:retinanet_r50_fpn", OVERRIDES)


@pytest.fixture(scope="module")
def imported(golden, recipe, tmp_path_factory):
    """The written weights of a `.pth` import, as a state dict."""
    folder = tmp_path_factory.mktemp("import")
    torch.save({"model": golden.weights, "__author__": "Detectron2"}, folder / "model_final.pth")
    report = import_detectron2(folder / "model_final.pth", recipe, folder / "ours.pth")
    assert (report.num_loaded, report.unused) == (len(golden.weights), ())
    assert report.kept == ("heads.boxes.loss_normalizer",)
    return read_weights(str(folder / "ours.pth"))


@pytest.fixture(scope="module")
def model(recipe, imported):
    model = build_model(recipe)
    load_weights(model, imported)
    return model


def test_the_rule_gives_the_golden_weights(golden):
    for name, shape, total, _ in golden.numbers["state_dict"]:
        assert list(golden.weights[name].shape) == shape
        assert golden.weights[name].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), name


def test_a_pickled_file_gives_the_same_import(golden, recipe, imported, tmp_path):
    content = {"model": {name: value.numpy() for name, value in golden.weights.items()}, "__author__": "Detectron2"}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content))
    import_detectron2(tmp_path / "model_final.pkl", recipe, tmp_path / "ours.pth")
    from_pickle = read_weights(str(tmp_path / "ours.pth"))
    assert from_pickle.keys() == imported.keys()
    assert all(torch.equal(from_pickle[name], imported[name]) for name in imported)


@pytest.mark.parametrize("letter", ["A", "B"])
def test_features_and_logits_agree(golden, model, letter):
    """To 1e-4 of each stage's greatest absolute value."""
    outputs = stages(model, golden.images[letter])
    wanted = {
        key: value for key, value in golden.arrays.items() if key.startswith(f"{letter}/") and "instances" not in key
    }
    assert outputs.keys() == {key.removeprefix(f"{letter}/") for key in wanted}
    for key, value in wanted.items():
        flat = outputs[key.removeprefix(f"{letter}/")].flatten()
        scale = max(map(abs, golden.numbers["stages"][key]))
        got = flat[:: len(flat) // len(value)][: len(value)]
        assert np.abs(got.numpy() - value).max() < 1e-4 * scale, key
        assert [flat.min().item(), flat.max().item()] == pytest.approx(
            golden.numbers["stages"][key], abs=1e-4 * scale
        ), key


@pytest.mark.parametrize("case", ["A", "B", "A_native"])
def test_detections_agree(golden, model, case):
    sample = {"image": golden.images[case[0]]}
    height, width = golden.numbers["results"][case]
    if case != "A_native":
        sample |= {"height": height, "width": width}
    model.eval()
    with torch.no_grad():
        found = model([sample])[0]["instances"]
    assert found.image_size == (height, width)
    boxes, scores, classes = (
        torch.from_numpy(golden.arrays[f"{case}/instances/{key}"]) for key in ("pred_boxes", "scores", "pred_classes")
    )
    assert len(found) == len(scores) == 100
    iou = box_iou(boxes, found.pred_boxes.tensor)
    iou[classes[:, None] != found.pred_classes[None]] = 0
    best, match = iou.max(dim=1)
    assert (best > 0.99).all() and len(set(match.tolist())) == 100
    assert (found.pred_boxes.tensor[match] - boxes).abs().max() < 1e-4 * max(height, width)
    torch.testing.assert_close(found.scores[match], scores, rtol=1e-4, atol=0)
    assert (found.scores.diff() <= 0).all()


def test_losses_of_two_training_steps_agree(golden, model, imported):
    """To 1e-5 relative; an SGD step of learning rate 1e-5 between the steps."""
    load_weights(model, imported)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-5, momentum=0.9, weight_decay=1e-4)
    for step, wanted in enumerate(golden.numbers["losses"]):
        losses = model(training_batch(golden))
        assert {name: loss.item() for name, loss in losses.items()} == {
            f"boxes/{name}": pytest.approx(value, rel=1e-5) for name, value in wanted["losses"].items()
        }
        if step == 0:
            positive = (model.heads["boxes"].loss_normalizer.item() - 90) / 0.1
            assert positive == pytest.approx(2 * wanted["storage"]["num_pos_anchors"], abs=1e-3)
            sum(losses.values()).backward()
            # A gate of a ReLU next to 0 may open or close with the order of a sum: see the test in float64.
            assert gradient_norms(model, golden) == pytest.approx(wanted["grad_norms"], rel=1e-2)
            optimizer.step()
            optimizer.zero_grad()
    load_weights(model, imported)


def test_gradient_norms_agree(golden, model, imported):
    """Of every trained parameter, to 1e-4 relative, in float64, where no rounding opens a gate."""
    load_weights(model, imported)
    model.train()
    batch = model.make_batch(training_batch(golden))
    double = copy.deepcopy(model).double()
    sum(double.losses(double.compute(batch.images.double()), batch).values()).backward()
    norms = gradient_norms(double, golden)
    assert norms.keys() == {name for name, _, _, fixed in golden.numbers["state_dict"] if not fixed}
    assert norms == pytest.approx(golden.numbers["losses"][0]["grad_norms"], rel=1e-4)


def stages(model, image):
    """The outputs of Detectron2's submodules by its names, of one image without padding."""
    model.eval()
    kept = {}
    stem = model.backbone.stem.register_forward_hook(
        lambda module, args, out: kept.update({"backbone.bottom_up.stem": out})
    )
    res2 = model.backbone.res2.register_forward_hook(
        lambda module, args, out: kept.update({"backbone.bottom_up.res2": out})
    )
    with torch.no_grad():
        images = model.make_batch([{"image": image}]).images
        features = model.backbone(images)
        pyramid = model.neck(features)
        raw = model.heads["boxes"](pyramid)
    stem.remove()
    res2.remove()
    kept |= {f"backbone.bottom_up.{name}": value for name, value in features.items()}
    kept |= {f"backbone/{name}": value for name, value in pyramid.items()}
    kept |= {f"head.cls_score/{i}": value for i, value in enumerate(raw.logits)}
    kept |= {f"head.bbox_pred/{i}": value for i, value in enumerate(raw.deltas)}
    return kept


def training_batch(golden):
    """Both images with their ground-truth boxes."""
    samples = []
    for letter in "AB":
        truth = golden.numbers["ground_truth"][letter]
        size = tuple(golden.images[letter].shape[-2:])
        boxes, classes = Boxes(torch.tensor(truth["boxes"])), torch.tensor(truth["classes"])
        samples.append(
            {"image": golden.images[letter], "instances": Instances(size, gt_boxes=boxes, gt_classes=classes)}
        )
    return samples


def gradient_norms(model, golden):
    """{Detectron2's name: norm of the gradient} of what has one."""
    renamed, _ = translate_names(golden.weights, model)
    parameters = dict(model.named_parameters())
    return {
        name: parameters[own].grad.double().norm().item()
        for own, name in renamed.items()
        if own in parameters and parameters[own].grad is not None
    }
