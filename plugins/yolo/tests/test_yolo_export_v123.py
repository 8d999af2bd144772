"""YOLOv1, v2 and v3 as ONNX: the exporter compares each file with the model and refuses what differs."""

import pytest
import torch

from vertebra import build_model, load_recipe
from vertebra_yolo import detections

SMALL = {
    "yolov1_fast_shapes": (
        "model.backbone.width=0.0625",
        "model.backbone.image_size=128",
        "model.heads.boxes.image_size=128",
        "model.heads.boxes.hidden=[64]",
    ),
    "yolov2_shapes": ("model.backbone.width=8", "model.neck.width=32"),
    "yolov3_tiny_shapes": ("model.backbone.width=8", "model.neck.width=32"),
}


def make_model(name):
    torch.manual_seed(0)
    model = build_model(load_recipe(f"yolo:{name}", SMALL[name]), 3).eval()
    for parameter in model.heads["boxes"].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # scores that spread
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form", "dynamic"),
    [
        ("yolov1_fast_shapes", "raw", False),
        ("yolov1_fast_shapes", "end-to-end", False),
        ("yolov2_shapes", "raw", False),
        ("yolov2_shapes", "end-to-end", True),
        ("yolov3_tiny_shapes", "raw", True),
        ("yolov3_tiny_shapes", "end-to-end", True),
    ],
)
def test_both_forms_agree_with_the_model(tmp_path, name, form, dynamic):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from vertebra.export import export_onnx

    export_onnx(make_model(name), tmp_path / "model.onnx", form=form, size=(128, 128), dynamic=dynamic)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ("NonMaxSuppression" in operators) == (form == "end-to-end")


@pytest.mark.parametrize("name", list(SMALL))
def test_both_forms_say_what_predict_says(name):
    """Raw: the best product of objectness and class is predict's best score. End to end: the same boxes and scores."""
    model = make_model(name)
    inputs = [{"image": torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)} for _ in range(2)]
    with torch.no_grad():
        batch = model.make_batch(inputs)
        raw = model.compute(batch.images)["boxes"]
        head = model.heads["boxes"]
        output = head.export_raw(raw, (128, 128))["output"]
        finished = head.export_predictions(raw, (128, 128))
        answers = head.predict(raw, batch)
    assert output.shape[0] == 2
    assert output.shape[2] == 5 + 3
    for row, (answer, rows) in enumerate(zip(answers, output, strict=True)):
        instances = answer["instances"]
        scores = rows[:, 4:5] * rows[:, 5:]
        assert len(instances)
        torch.testing.assert_close(scores.max(), instances.scores.max())
        found = finished["scores"][row] > 0
        assert found.sum() >= len(instances)  # predict drops what is empty once it is clipped to the image
        torch.testing.assert_close(finished["scores"][row][0], instances.scores[0])
        best = int(scores.max(dim=1).values.argmax())
        center, size = rows[best, :2], rows[best, 2:4]
        torch.testing.assert_close(torch.cat((center - size / 2, center + size / 2)), finished["boxes"][row][0])


@pytest.mark.parametrize("name", ["yolov2_shapes", "yolov3_tiny_shapes"])
def test_what_fills_up_a_graph_for_any_size_is_no_candidate(name, top_values_of_any_size):
    model = make_model(name)
    head = model.heads["boxes"]
    with torch.no_grad():
        raw = model.compute(torch.rand(1, 3, 128, 128))["boxes"]
        (raw if torch.is_tensor(raw) else raw[-1])[..., -1, -1] += 3.0  # the last cell, which is repeated
        expected = head.export_predictions(raw, (128, 128))
        top_values_of_any_size(detections)
        found = head.export_predictions(raw, (128, 128))
    assert (expected["scores"] > 0).sum() > 10
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


def test_folded_batch_norms_change_nothing():
    from vertebra.models import fuse_conv_bn

    model = make_model("yolov3_tiny_shapes")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 1.5)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = model.compute(images)["boxes"]
        after = fuse_conv_bn(model).compute(images)["boxes"]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
